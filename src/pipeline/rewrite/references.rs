//! Collects the names that a template references, and infers the types of its expressions.

use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, Expr, UnaryOpKind};

use crate::pipeline::operators::Comparison;
use crate::pipeline::signatures;
use crate::pipeline::values::Kind;

use super::rewriter::{Rewriter, source_range};

/// Names that the template language defines; they are not variables of the pipeline.
const LANGUAGE_NAMES: [&str; 6] = ["loop", "self", "super", "caller", "varargs", "kwargs"];

impl<'s> Rewriter<'s, '_> {
    pub(super) fn reference(&mut self, name: &str, range: Range<usize>) {
        if !self.is_bound(name) && !LANGUAGE_NAMES.contains(&name) {
            self.variables.entry(name.to_owned()).or_insert(range);
        }
    }

    /// Records a path such as `item.sender.name`, up to its first part that is not a name.
    pub(super) fn reference_path(&mut self, expr: &Expr<'s>) {
        match (self.path(expr), expr) {
            (Some(path), _) => {
                self.paths.entry(path.join(".")).or_insert_with(|| source_range(expr));
            }
            (None, Expr::GetAttr(attr)) => self.reference_path(&attr.expr),
            (None, Expr::GetItem(item)) => self.reference_path(&item.expr),
            (None, _) => {}
        }
    }

    fn path(&self, expr: &Expr<'s>) -> Option<Vec<&'s str>> {
        match expr {
            Expr::Var(var) if !self.is_bound(var.id) && !LANGUAGE_NAMES.contains(&var.id) => {
                Some(vec![var.id])
            }
            Expr::GetAttr(attr) => {
                let mut path = self.path(&attr.expr)?;
                path.push(attr.name);
                Some(path)
            }
            _ => None,
        }
    }

    /// Returns the type of an expression, if it is known and the same for every item.
    pub(super) fn kind(&self, expr: &Expr<'s>) -> Option<Kind> {
        match expr {
            Expr::Const(constant) => Some(Kind::of(&constant.value)),
            Expr::Var(_) | Expr::GetAttr(_) => self.symbols.kind(&self.path(expr)?),
            Expr::Filter(filter) => match filter.name {
                // With arguments, they may return another value for a text that is not a number.
                "int" | "float" if filter.args.is_empty() => Some(Kind::Number),
                name => signatures::filter(name)?.result,
            },
            Expr::List(_) | Expr::Tuple(_) => Some(Kind::List),
            Expr::Map(_) => Some(Kind::Map),
            Expr::Test(_) | Expr::Compare(_) => Some(Kind::Bool),
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => Some(Kind::Bool),
                UnaryOpKind::Neg => Some(Kind::Number),
            },
            Expr::BinOp(op) => match op.op {
                BinOpKind::Concat => Some(Kind::Text),
                BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => {
                    Some(Kind::Number)
                }
                BinOpKind::Add | BinOpKind::Mul => {
                    let left = self.kind(&op.left)?;
                    (left == self.kind(&op.right)?).then_some(left)
                }
                BinOpKind::ScAnd | BinOpKind::ScOr => None,
                _ => Some(Kind::Bool),
            },
            Expr::IfExpr(choice) => {
                let kind = self.kind(&choice.true_expr)?;
                (kind == self.kind(choice.false_expr.as_ref()?)?).then_some(kind)
            }
            Expr::Call(_) | Expr::GetItem(_) | Expr::Slice(_) => None,
        }
    }

    /// Reports a comparison that would fail for every item.
    pub(super) fn check_comparison(
        &mut self,
        comparison: Comparison,
        left: &Expr<'s>,
        right: &Expr<'s>,
        source: Range<usize>,
    ) {
        if let (Some(left), Some(right)) = (self.kind(left), self.kind(right))
            && !comparison.accepts(left, right)
        {
            self.error(comparison.error_message(left, right), source);
        }
    }

    /// Reports a calculation with a text and a number, which would fail for every item.
    pub(super) fn check_arithmetic(&mut self, op: &ast::BinOp<'s>, source: Range<usize>) {
        let kinds = (self.kind(&op.left), self.kind(&op.right));
        if let (Some(Kind::Text), Some(Kind::Number)) | (Some(Kind::Number), Some(Kind::Text)) = kinds {
            let message = "cannot calculate with a text; make it a number with `| float` or `| int`";
            self.error(message, source);
        }
    }
}
