//! Writes out the expressions of a template, with every operator as a call of a filter.

use std::fmt::Write;
use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, CallType, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::{Value, ValueKind};

use super::operators::Comparison;
use super::rewrite::{Rewriter, place, range};

impl<'s> Rewriter<'s, '_> {
    /// Writes an expression whose value must not be missing.
    pub(super) fn strict(&mut self, expr: &Expr<'s>) {
        let source = place(expr);
        self.from(source, |this| {
            this.lenient(expr);
            if this.may_be_missing(expr) {
                this.put("|__v");
            }
        });
    }

    /// Writes an expression whose value a variable keeps.
    pub(super) fn kept(&mut self, expr: &Expr<'s>) {
        self.through("|__kept", expr);
    }

    /// Writes an expression whose value a namespace keeps.
    pub(super) fn part(&mut self, expr: &Expr<'s>) {
        self.through("|__part", expr);
    }

    fn through(&mut self, filter: &str, expr: &Expr<'s>) {
        let source = place(expr);
        self.from(source, |this| {
            this.strict(expr);
            this.put(if matches!(expr, Expr::Const(_)) { "" } else { filter });
        });
    }

    pub(super) fn may_be_missing(&self, expr: &Expr<'_>) -> bool {
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

    /// Writes an expression as the operand of a filter: nothing of it binds less than a filter does.
    pub(super) fn lenient(&mut self, expr: &Expr<'s>) {
        match expr {
            Expr::Var(var) => {
                self.mention(var.id, range(var.span()));
                self.put(var.id);
            }
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::GetAttr(_) | Expr::GetItem(_) => {
                self.mention_path(expr);
                self.access(expr);
            }
            Expr::Slice(slice) => {
                self.base(&slice.expr, true);
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
            Expr::BinOp(op) => self.binary(op, place(expr)),
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
                for (at, (key, value)) in map.keys.iter().zip(&map.values).enumerate() {
                    if at > 0 {
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

    pub(super) fn sequence(&mut self, open: &str, items: &[Expr<'s>], close: &str) {
        self.put(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.put(", ");
            }
            self.strict(item);
        }
        self.put(close);
    }

    /// Writes `a.b` or `a[b]`, whose paths were noted.
    pub(super) fn access(&mut self, expr: &Expr<'s>) {
        match expr {
            Expr::GetAttr(attr) => {
                self.from(place(&attr.expr), |this| this.base(&attr.expr, false));
                self.put(".");
                self.put(attr.name);
            }
            Expr::GetItem(item) => {
                self.from(place(&item.expr), |this| this.base(&item.expr, false));
                self.put("[");
                self.strict(&item.subscript_expr);
                self.put("]");
            }
            other => self.lenient(other),
        }
    }

    /// Writes what a dot, a bracket or a call can follow.
    pub(super) fn base(&mut self, expr: &Expr<'s>, strict: bool) {
        if strict && self.may_be_missing(expr) {
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

    pub(super) fn binary(&mut self, op: &ast::BinOp<'s>, source: Range<usize>) {
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
                self.calculation(op, source);
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
                self.calculation(op, source);
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

    pub(super) fn operator(&mut self, filter: &str, op: &ast::BinOp<'s>) {
        self.strict(&op.left);
        self.put("|");
        self.put(filter);
        self.put("(");
        self.strict(&op.right);
        self.put(")");
    }

    pub(super) fn comparison(&mut self, comparison: Comparison, op: &ast::BinOp<'s>, source: Range<usize>) {
        self.judge(comparison, &op.left, &op.right, source);
        self.operator(comparison.filter(), op);
    }

    pub(super) fn chain(&mut self, compare: &ast::Compare<'s>) {
        self.strict(&compare.expr);
        self.put("|__chain(");
        let mut left = &compare.expr;
        for (at, next) in compare.ops.iter().enumerate() {
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
            self.judge(comparison, left, &next.expr, place(left).start..place(&next.expr).end);
            if at > 0 {
                self.put(", ");
            }
            let _ = write!(self.out, "\"{}\", ", comparison.filter());
            self.strict(&next.expr);
            left = &next.expr;
        }
        self.put(")");
    }

    pub(super) fn constant(&mut self, value: &Value) {
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if number.is_finite() => {
                    let _ = write!(self.out, "{number:?}");
                }
                _ => self.put("1e999"),
            },
            _ => self.put("none"),
        }
    }

    /// Writes a text as a literal.
    pub(super) fn text(&mut self, text: &str) {
        self.put("\"");
        for letter in text.chars() {
            match letter {
                '"' => self.put("\\\""),
                '\\' => self.put("\\\\"),
                '\n' => self.put("\\n"),
                '\r' => self.put("\\r"),
                other => self.out.push(other),
            }
        }
        self.put("\"");
    }
}
