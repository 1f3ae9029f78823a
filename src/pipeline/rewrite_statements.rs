//! Writes out the statements of a template, in the scopes of the language.

use std::fmt::Write;
use std::ops::Range;

use minijinja::machinery::ast::{self, Expr, Stmt};

use super::rewrite::{Rewriter, range};

impl<'s> Rewriter<'s, '_> {
    pub(super) fn statements(&mut self, statements: &[Stmt<'s>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    /// Writes what a loop or a macro does each time. The empty text is for the meter, which counts what is written.
    pub(super) fn body(&mut self, statements: &[Stmt<'s>]) {
        self.put("{{ \"\" }}");
        self.statements(statements);
    }

    pub(super) fn statement(&mut self, statement: &Stmt<'s>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(raw) => {
                self.put("{{ ");
                self.text(raw.raw);
                self.put(" }}");
            }
            Stmt::EmitExpr(emit) => {
                self.put("{{ ");
                self.strict(&emit.expr);
                self.put(" }}");
            }
            Stmt::ForLoop(each) => self.for_loop(each),
            Stmt::IfCond(choice) => {
                self.put("{% if ");
                self.if_rest(choice);
                self.put("{% endif %}");
            }
            Stmt::WithBlock(with) => self.scoped(|this| {
                this.put("{% with ");
                for (at, (target, value)) in with.assignments.iter().enumerate() {
                    if at > 0 {
                        this.put(", ");
                    }
                    this.target(target, true);
                    this.put(" = ");
                    this.kept(value);
                    this.bind(target);
                }
                this.put(" %}");
                this.statements(&with.body);
                this.put("{% endwith %}");
            }),
            Stmt::Set(set) => {
                self.put("{% set ");
                self.refuse_steps(&set.target);
                self.target(&set.target, false);
                self.put(" = ");
                match &set.target {
                    Expr::GetAttr(_) => self.part(&set.expr),
                    _ => self.kept(&set.expr),
                }
                self.bind(&set.target);
                self.put(" %}");
            }
            Stmt::SetBlock(set) => {
                self.put("{% set ");
                self.refuse_steps(&set.target);
                self.target(&set.target, false);
                if let Some(filter) = &set.filter {
                    self.put("|");
                    self.filters(filter);
                }
                self.put(" %}");
                self.statements(&set.body);
                self.put("{% endset %}");
                self.bind(&set.target);
            }
            Stmt::AutoEscape(block) => {
                self.put("{% autoescape ");
                self.strict(&block.enabled);
                self.put(" %}");
                self.statements(&block.body);
                self.put("{% endautoescape %}");
            }
            Stmt::FilterBlock(block) => {
                self.put("{% filter ");
                self.filters(&block.filter);
                self.put(" %}");
                self.statements(&block.body);
                self.put("{% endfilter %}");
            }
            Stmt::Block(block) => {
                let _ = write!(self.out, "{{% block {} %}}", block.name);
                self.statements(&block.body);
                self.put("{% endblock %}");
            }
            Stmt::Import(import) => self.refuse_other("import", range(import.span())),
            Stmt::FromImport(import) => self.refuse_other("from", range(import.span())),
            Stmt::Extends(extends) => self.refuse_other("extends", range(extends.span())),
            Stmt::Include(include) => self.refuse_other("include", range(include.span())),
            Stmt::Macro(definition) => {
                self.refuse_name(definition.name, range(definition.span()));
                self.bind_name(definition.name);
                let _ = write!(self.out, "{{% macro {}(", definition.name);
                self.parameters(definition);
                self.put(") %}");
                self.macro_body(definition);
                self.put("{% endmacro %}");
            }
            Stmt::CallBlock(block) => {
                self.put("{% call(");
                self.parameters(&block.macro_decl);
                self.put(") ");
                self.call(&block.call);
                self.put(" %}");
                self.macro_body(&block.macro_decl);
                self.put("{% endcall %}");
            }
            Stmt::Do(run) => {
                self.put("{% do ");
                self.call(&run.call);
                self.put(" %}");
            }
        }
    }

    pub(super) fn refuse_other(&mut self, statement: &str, range: Range<usize>) {
        let end = range.start + statement.len();
        self.flaw(format!("`{statement}` does not work here: a template stands alone"), range.start..end);
    }

    pub(super) fn for_loop(&mut self, each: &ast::ForLoop<'s>) {
        self.put("{% for ");
        self.target(&each.target, false);
        self.put(" in ");
        self.strict(&each.iter);
        self.scoped(|this| {
            this.bind(&each.target);
            if let Some(filter) = &each.filter_expr {
                this.put(" if ");
                this.strict(filter);
            }
            if each.recursive {
                this.put(" recursive");
            }
            this.put(" %}");
            this.body(&each.body);
        });
        if !each.else_body.is_empty() {
            self.put("{% else %}");
            self.statements(&each.else_body);
        }
        self.put("{% endfor %}");
    }

    pub(super) fn if_rest(&mut self, choice: &ast::IfCond<'s>) {
        self.strict(&choice.expr);
        self.put(" %}");
        self.statements(&choice.true_body);
        match &choice.false_body[..] {
            [] => {}
            [Stmt::IfCond(next)] => {
                self.put("{% elif ");
                self.if_rest(next);
            }
            other => {
                self.put("{% else %}");
                self.statements(other);
            }
        }
    }

    /// Writes the parameters of a macro. A default may name a step: the step is then one to wait for.
    pub(super) fn parameters(&mut self, definition: &ast::Macro<'s>) {
        let without = definition.args.len().saturating_sub(definition.defaults.len());
        for (at, arg) in definition.args.iter().enumerate() {
            if at > 0 {
                self.put(", ");
            }
            self.target(arg, true);
            if let Some(default) = at.checked_sub(without).and_then(|at| definition.defaults.get(at)) {
                self.put("=");
                self.strict(default);
            }
        }
    }

    pub(super) fn macro_body(&mut self, definition: &ast::Macro<'s>) {
        self.scoped(|this| {
            definition.args.iter().for_each(|arg| this.bind(arg));
            this.body(&definition.body);
        });
    }

    /// Refuses to assign what the pipeline gives.
    pub(super) fn refuse_steps(&mut self, target: &Expr<'s>) {
        match target {
            Expr::Var(var) => self.refuse_name(var.id, range(var.span())),
            Expr::List(list) => list.items.iter().for_each(|item| self.refuse_steps(item)),
            _ => {}
        }
    }

    pub(super) fn refuse_name(&mut self, name: &str, range: Range<usize>) {
        if name == "item" {
            self.flaw("`item` cannot be assigned; choose another name", range);
        } else if self.facts.is_step(name) {
            self.flaw(
                format!("`{name}` is the answer of a step and cannot be assigned; choose another name"),
                range,
            );
        }
    }

    /// Writes what is assigned to.
    pub(super) fn target(&mut self, target: &Expr<'s>, nested: bool) {
        match target {
            Expr::Var(var) => self.put(var.id),
            Expr::List(list) => {
                self.put(if nested { "(" } else { "" });
                for (at, item) in list.items.iter().enumerate() {
                    if at > 0 {
                        self.put(", ");
                    }
                    self.target(item, true);
                }
                self.put(if list.items.len() == 1 { "," } else { "" });
                self.put(if nested { ")" } else { "" });
            }
            other => self.lenient(other),
        }
    }

    /// Makes the names that are assigned to known from here to the end of their scope.
    pub(super) fn bind(&mut self, target: &Expr<'s>) {
        match target {
            Expr::Var(var) => self.bind_name(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item)),
            _ => {}
        }
    }
}
