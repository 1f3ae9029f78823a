//! Rewrites the expressions of a template, with every operator as a call of a filter.

use std::fmt::Write;
use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, CallArg, CallType, CompareOpKind, Expr, UnaryOpKind};

use crate::pipeline::operators::Comparison;

use super::call_checks::is_splat;
use super::rewriter::{Rewriter, range, source_range};

impl<'s> Rewriter<'s, '_> {
    /// Rewrites an expression whose value must not be undefined.
    pub(super) fn strict(&mut self, expr: &Expr<'s>) {
        let source = source_range(expr);
        self.mapped(source, |this| {
            this.lenient(expr);
            if this.may_be_undefined(expr) {
                this.put("|__v");
            }
        });
    }

    /// Rewrites an expression whose value is assigned to a variable.
    pub(super) fn assigned(&mut self, expr: &Expr<'s>) {
        self.with_filter("|__kept", expr);
    }

    /// Rewrites an expression whose value is stored in a namespace.
    pub(super) fn namespace_member(&mut self, expr: &Expr<'s>) {
        self.with_filter("|__part", expr);
    }

    fn with_filter(&mut self, filter: &str, expr: &Expr<'s>) {
        let source = source_range(expr);
        self.mapped(source, |this| {
            this.strict(expr);
            this.put(if matches!(expr, Expr::Const(_)) { "" } else { filter });
        });
    }

    fn may_be_undefined(&self, expr: &Expr<'_>) -> bool {
        match expr {
            Expr::Var(var) => self.is_bound(var.id),
            Expr::GetAttr(_) | Expr::GetItem(_) => true,
            Expr::Filter(filter) => {
                matches!(filter.name, "first" | "last" | "min" | "max" | "attr" | "default" | "d" | "sum")
            }
            Expr::Call(call) => matches!(call.identify_call(), CallType::Method(..)),
            _ => false,
        }
    }

    /// Rewrites an expression as the operand of a filter. Its parts that bind less tightly than a filter are put
    /// in parentheses.
    pub(super) fn lenient(&mut self, expr: &Expr<'s>) {
        match expr {
            Expr::Var(var) => {
                self.reference(var.id, range(var.span()));
                self.put(var.id);
            }
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::GetAttr(_) | Expr::GetItem(_) => {
                self.reference_path(expr);
                self.access(expr);
            }
            Expr::Slice(slice) => {
                self.receiver(&slice.expr, true);
                self.put("[");
                slice.start.iter().for_each(|start| self.strict(start));
                self.put(":");
                slice.stop.iter().for_each(|stop| self.strict(stop));
                if let Some(step) = &slice.step {
                    self.put(":");
                    self.strict(step);
                }
                self.put("]");
            }
            Expr::UnaryOp(op) => {
                self.put(match op.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                let is_neg = matches!(op.op, UnaryOpKind::Neg);
                self.put(if is_neg { "(" } else { "" });
                self.strict(&op.expr);
                self.put(if is_neg { "))" } else { ")" });
            }
            Expr::BinOp(op) => self.binary(op, source_range(expr)),
            Expr::Compare(compare) => self.chain(compare),
            Expr::IfExpr(choice) => {
                self.put("(");
                self.strict(&choice.true_expr);
                self.put(" if ");
                self.strict(&choice.test_expr);
                if let Some(other) = &choice.false_expr {
                    self.put(" else ");
                    self.strict(other);
                }
                self.put(")");
            }
            Expr::Filter(_) => self.filters(expr),
            Expr::Test(_) => self.test(expr),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                self.sequence("[", &list.items, "]|__kept");
            }
            Expr::Tuple(tuple) => {
                let end = if tuple.items.len() == 1 { ",)|__kept" } else { ")|__kept" };
                self.sequence("(", &tuple.items, end);
            }
            Expr::Map(map) => {
                self.put("{");
                for (index, (key, value)) in map.keys.iter().zip(&map.values).enumerate() {
                    if index > 0 {
                        self.put(", ");
                    }
                    self.strict(key);
                    self.put(": ");
                    self.strict(value);
                }
                self.put("}|__kept");
            }
        }
    }

    fn sequence(&mut self, open: &str, items: &[Expr<'s>], close: &str) {
        self.put(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.put(", ");
            }
            self.strict(item);
        }
        self.put(close);
    }

    /// Rewrites `a.b` or `a[b]`, whose paths are already recorded.
    fn access(&mut self, expr: &Expr<'s>) {
        match expr {
            Expr::GetAttr(attr) => {
                self.mapped(source_range(&attr.expr), |this| this.receiver(&attr.expr, false));
                self.put(".");
                self.put(attr.name);
            }
            Expr::GetItem(item) => {
                self.mapped(source_range(&item.expr), |this| this.receiver(&item.expr, false));
                self.put("[");
                self.strict(&item.subscript_expr);
                self.put("]");
            }
            other => self.lenient(other),
        }
    }

    /// Rewrites an expression that is followed by a dot, a bracket or a call.
    fn receiver(&mut self, expr: &Expr<'s>, strict: bool) {
        if strict && self.may_be_undefined(expr) {
            self.put("(");
            self.strict(expr);
            return self.put(")");
        }
        match expr {
            Expr::GetAttr(_) | Expr::GetItem(_) => self.access(expr),
            Expr::Var(_) | Expr::Call(_) => self.lenient(expr),
            _ => {
                self.put("(");
                self.strict(expr);
                self.put(")");
            }
        }
    }

    fn binary(&mut self, op: &ast::BinOp<'s>, source: Range<usize>) {
        let is_none = |expr: &Expr<'_>| matches!(expr, Expr::Const(constant) if constant.value.is_none());
        let filter = match op.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                self.put("(");
                self.strict(&op.left);
                self.put(if matches!(op.op, BinOpKind::ScAnd) { " and " } else { " or " });
                self.strict(&op.right);
                return self.put(")");
            }
            BinOpKind::Eq | BinOpKind::Ne if is_none(&op.left) || is_none(&op.right) => {
                self.put("(");
                self.strict(if is_none(&op.left) { &op.right } else { &op.left });
                self.put(if matches!(op.op, BinOpKind::Eq) { " is none)" } else { " is not none)" });
                return;
            }
            BinOpKind::In if is_none(&op.left) => return self.comparison(Comparison::In, op, source),
            BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => {
                self.check_arithmetic(op, source);
                self.put("(");
                self.strict(&op.left);
                self.put(match op.op {
                    BinOpKind::Sub => " - ",
                    BinOpKind::Div => " / ",
                    BinOpKind::FloorDiv => " // ",
                    BinOpKind::Rem => " % ",
                    _ => " ** ",
                });
                self.strict(&op.right);
                return self.put(")");
            }
            BinOpKind::Add => {
                self.check_arithmetic(op, source);
                "__add"
            }
            BinOpKind::Mul => "__mul",
            BinOpKind::Concat => "__cat",
            BinOpKind::Eq => return self.comparison(Comparison::Equal, op, source),
            BinOpKind::Ne => return self.comparison(Comparison::Unequal, op, source),
            BinOpKind::Lt => return self.comparison(Comparison::Less, op, source),
            BinOpKind::Lte => return self.comparison(Comparison::LessOrEqual, op, source),
            BinOpKind::Gt => return self.comparison(Comparison::Greater, op, source),
            BinOpKind::Gte => return self.comparison(Comparison::GreaterOrEqual, op, source),
            BinOpKind::In => return self.comparison(Comparison::In, op, source),
        };
        self.operator(filter, op);
    }

    fn operator(&mut self, filter: &str, op: &ast::BinOp<'s>) {
        self.strict(&op.left);
        self.put("|");
        self.put(filter);
        self.put("(");
        self.strict(&op.right);
        self.put(")");
    }

    fn comparison(&mut self, comparison: Comparison, op: &ast::BinOp<'s>, source: Range<usize>) {
        self.check_comparison(comparison, &op.left, &op.right, source);
        self.operator(comparison.filter_name(), op);
    }

    fn chain(&mut self, compare: &ast::Compare<'s>) {
        self.strict(&compare.expr);
        self.put("|__chain(");
        let mut left = &compare.expr;
        for (index, next) in compare.ops.iter().enumerate() {
            let comparison = match next.op {
                CompareOpKind::Eq => Comparison::Equal,
                CompareOpKind::Ne => Comparison::Unequal,
                CompareOpKind::Lt => Comparison::Less,
                CompareOpKind::Lte => Comparison::LessOrEqual,
                CompareOpKind::Gt => Comparison::Greater,
                CompareOpKind::Gte => Comparison::GreaterOrEqual,
                CompareOpKind::In => Comparison::In,
                CompareOpKind::NotIn => Comparison::NotIn,
            };
            self.check_comparison(
                comparison,
                left,
                &next.expr,
                source_range(left).start..source_range(&next.expr).end,
            );
            if index > 0 {
                self.put(", ");
            }
            // Writing to a `String` cannot fail.
            let _ = write!(self.out, "\"{}\", ", comparison.filter_name());
            self.strict(&next.expr);
            left = &next.expr;
        }
        self.put(")");
    }

    /// Rewrites a filter and the value that it is applied to, or a chain of filters without a value.
    pub(super) fn filters(&mut self, expr: &Expr<'s>) {
        let Expr::Filter(filter) = expr else { return self.strict(expr) };
        self.check_filter(filter);
        if let Some(inner) = &filter.expr {
            match filter.name {
                "default" | "d" => self.lenient(inner),
                _ => self.strict(inner),
            }
            self.put("|");
        }
        let source = source_range(expr);
        self.mapped(source, |this| {
            this.put(filter.name);
            this.args(&filter.args, Self::strict);
        });
    }

    fn test(&mut self, expr: &Expr<'s>) {
        let Expr::Test(test) = expr else { return };
        let span = range(expr.span());
        let source = source_range(&test.expr).start..span.end;
        self.check_test(test, source.clone(), span.start..span.start + test.name.len());
        self.mapped(source, |this| {
            this.put("(");
            match test.name {
                "defined" | "undefined" => this.lenient(&test.expr),
                _ => this.strict(&test.expr),
            }
            this.put(" is ");
            this.put(test.name);
            this.args(&test.args, Self::strict);
            this.put(")");
        });
    }

    pub(super) fn call(&mut self, call: &ast::Call<'s>) {
        match call.identify_call() {
            CallType::Function(name) => {
                let name_range = range(call.expr.span());
                self.reference(name, name_range.clone());
                if name == "item" || self.symbols.is_step(name) && !self.is_bound(name) {
                    self.error(format!("`{name}` is not a function"), name_range);
                }
                self.put(name);
            }
            CallType::Block(name) => {
                self.put("self.");
                self.put(name);
            }
            CallType::Method(object, name) => {
                let is_local = matches!(object, Expr::Var(var) if var.id == "loop" || self.is_bound(var.id));
                let end = source_range(&call.expr).end;
                let name_range = end - name.len().min(end)..end;
                self.check_method(name, &call.args, name_range, is_local);
                if let Expr::GetAttr(_) | Expr::GetItem(_) = object {
                    self.reference_path(object);
                }
                self.receiver(object, true);
                self.put(".");
                self.put(name);
            }
            CallType::Object(object) => self.receiver(object, true),
        }
        if call.args.is_empty() {
            return self.put("()");
        }
        let is_namespace = matches!(call.identify_call(), CallType::Function("namespace" | "dict"));
        self.args(&call.args, if is_namespace { Self::namespace_member } else { Self::assigned });
    }

    fn args(&mut self, args: &[CallArg<'s>], write: fn(&mut Self, &Expr<'s>)) {
        if args.is_empty() {
            return;
        }
        self.put("(");
        for (index, arg) in args.iter().enumerate() {
            if index > 0 {
                self.put(", ");
            }
            let value = match arg {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    value
                }
                CallArg::PosSplat(value) => {
                    self.put("*");
                    value
                }
                CallArg::KwargSplat(value) => {
                    self.put("**");
                    value
                }
            };
            match is_splat(arg) {
                true => self.strict(value),
                false => write(self, value),
            }
        }
        self.put(")");
    }
}
