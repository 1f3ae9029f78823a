//! Rewrites the statements of a template, by the scoping rules of the language.

use std::fmt::Write;
use std::ops::Range;

use minijinja::machinery::ast::{self, Expr, Stmt};

use super::rewriter::{Rewriter, range};

impl<'s> Rewriter<'s, '_> {
    fn statements(&mut self, statements: &[Stmt<'s>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    /// Rewrites the body of a loop or a macro. The empty text charges the meter for each execution, because the
    /// meter counts output.
    fn body(&mut self, statements: &[Stmt<'s>]) {
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
                self.if_branches(choice);
                self.put("{% endif %}");
            }
            Stmt::WithBlock(with) => self.scoped(|this| {
                this.put("{% with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    if index > 0 {
                        this.put(", ");
                    }
                    this.target(target, true);
                    this.put(" = ");
                    this.assigned(value);
                    this.bind(target);
                }
                this.put(" %}");
                this.statements(&with.body);
                this.put("{% endwith %}");
            }),
            Stmt::Set(set) => {
                self.put("{% set ");
                self.check_targets(&set.target);
                self.target(&set.target, false);
                self.put(" = ");
                match &set.target {
                    Expr::GetAttr(_) => self.namespace_member(&set.expr),
                    _ => self.assigned(&set.expr),
                }
                self.bind(&set.target);
                self.put(" %}");
            }
            Stmt::SetBlock(set) => {
                self.put("{% set ");
                self.check_targets(&set.target);
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
                // Writing to a `String` cannot fail.
                let _ = write!(self.out, "{{% block {} %}}", block.name);
                self.statements(&block.body);
                self.put("{% endblock %}");
            }
            Stmt::Import(import) => self.unsupported("import", range(import.span())),
            Stmt::FromImport(import) => self.unsupported("from", range(import.span())),
            Stmt::Extends(extends) => self.unsupported("extends", range(extends.span())),
            Stmt::Include(include) => self.unsupported("include", range(include.span())),
            Stmt::Macro(definition) => {
                self.check_assignable(definition.name, range(definition.span()));
                self.bind_name(definition.name);
                // Writing to a `String` cannot fail.
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

    fn unsupported(&mut self, statement: &str, range: Range<usize>) {
        let end = range.start + statement.len();
        self.error(
            format!("`{statement}` is not supported: a template cannot use other templates"),
            range.start..end,
        );
    }

    fn for_loop(&mut self, each: &ast::ForLoop<'s>) {
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

    fn if_branches(&mut self, choice: &ast::IfCond<'s>) {
        self.strict(&choice.expr);
        self.put(" %}");
        self.statements(&choice.true_body);
        match &choice.false_body[..] {
            [] => {}
            [Stmt::IfCond(next)] => {
                self.put("{% elif ");
                self.if_branches(next);
            }
            other => {
                self.put("{% else %}");
                self.statements(other);
            }
        }
    }

    /// Rewrites the parameters of a macro. A default value may reference a step, which is then needed.
    fn parameters(&mut self, definition: &ast::Macro<'s>) {
        let without_default = definition.args.len().saturating_sub(definition.defaults.len());
        for (index, arg) in definition.args.iter().enumerate() {
            if index > 0 {
                self.put(", ");
            }
            self.target(arg, true);
            if let Some(default) =
                index.checked_sub(without_default).and_then(|index| definition.defaults.get(index))
            {
                self.put("=");
                self.strict(default);
            }
        }
    }

    fn macro_body(&mut self, definition: &ast::Macro<'s>) {
        self.scoped(|this| {
            definition.args.iter().for_each(|arg| this.bind(arg));
            this.body(&definition.body);
        });
    }

    /// Reports assignments to `item` and to the names of steps.
    fn check_targets(&mut self, target: &Expr<'s>) {
        match target {
            Expr::Var(var) => self.check_assignable(var.id, range(var.span())),
            Expr::List(list) => list.items.iter().for_each(|item| self.check_targets(item)),
            _ => {}
        }
    }

    fn check_assignable(&mut self, name: &str, range: Range<usize>) {
        if name == "item" {
            self.error("`item` cannot be assigned; choose another name", range);
        } else if self.symbols.is_step(name) {
            self.error(
                format!("`{name}` is the answer of a step and cannot be assigned; choose another name"),
                range,
            );
        }
    }

    /// Rewrites the target of an assignment.
    fn target(&mut self, target: &Expr<'s>, nested: bool) {
        match target {
            Expr::Var(var) => self.put(var.id),
            Expr::List(list) => {
                self.put(if nested { "(" } else { "" });
                for (index, item) in list.items.iter().enumerate() {
                    if index > 0 {
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

    /// Defines the assigned names from here to the end of their scope.
    fn bind(&mut self, target: &Expr<'s>) {
        match target {
            Expr::Var(var) => self.bind_name(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item)),
            _ => {}
        }
    }
}
