//! Finds the names that a template uses, and what kinds its expressions have for every item.

use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, Expr, UnaryOpKind};

use super::operators::Comparison;
use super::rewrite::{LANGUAGE, Rewriter, place};
use super::signatures;
use super::values::Kind;

impl<'s> Rewriter<'s, '_> {
    pub(super) fn mention(&mut self, name: &str, range: Range<usize>) {
        if !self.is_bound(name) && !LANGUAGE.contains(&name) {
            self.variables.entry(name.to_owned()).or_insert(range);
        }
    }

    /// Notes a path such as `item.sender.name`, up to its first part that is no name.
    pub(super) fn mention_path(&mut self, expr: &Expr<'s>) {
        match (self.path(expr), expr) {
            (Some(path), _) => {
                self.paths.entry(path.join(".")).or_insert_with(|| place(expr));
            }
            (None, Expr::GetAttr(attr)) => self.mention_path(&attr.expr),
            (None, Expr::GetItem(item)) => self.mention_path(&item.expr),
            (None, _) => {}
        }
    }

    pub(super) fn path(&self, expr: &Expr<'s>) -> Option<Vec<&'s str>> {
        match expr {
            Expr::Var(var) if !self.is_bound(var.id) && !LANGUAGE.contains(&var.id) => Some(vec![var.id]),
            Expr::GetAttr(attr) => {
                let mut path = self.path(&attr.expr)?;
                path.push(attr.name);
                Some(path)
            }
            _ => None,
        }
    }

    /// Returns what kind of value an expression has for every item, where that is known.
    pub(super) fn kind(&self, expr: &Expr<'s>) -> Option<Kind> {
        match expr {
            Expr::Const(constant) => Some(Kind::of(&constant.value)),
            Expr::Var(_) | Expr::GetAttr(_) => self.facts.kind(&self.path(expr)?),
            Expr::Filter(filter) => match filter.name {
                // Another value may stand for what is no number.
                "int" | "float" if filter.args.is_empty() => Some(Kind::Number),
                name => signatures::signature(name)?.makes,
            },
            Expr::List(_) | Expr::Tuple(_) => Some(Kind::List),
            Expr::Map(_) => Some(Kind::Map),
            Expr::Test(_) | Expr::Compare(_) => Some(Kind::Truth),
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => Some(Kind::Truth),
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
                _ => Some(Kind::Truth),
            },
            Expr::IfExpr(choice) => {
                let one = self.kind(&choice.true_expr)?;
                (one == self.kind(choice.false_expr.as_ref()?)?).then_some(one)
            }
            Expr::Call(_) | Expr::GetItem(_) | Expr::Slice(_) => None,
        }
    }

    /// Finds a comparison that would fail for every item.
    pub(super) fn judge(
        &mut self,
        comparison: Comparison,
        left: &Expr<'s>,
        right: &Expr<'s>,
        source: Range<usize>,
    ) {
        if let (Some(left), Some(right)) = (self.kind(left), self.kind(right))
            && !comparison.accepts(left, right)
        {
            self.flaw(comparison.refusal(left, right), source);
        }
    }

    /// Finds a calculation with a text and a number, which would fail for every item.
    pub(super) fn calculation(&mut self, op: &ast::BinOp<'s>, source: Range<usize>) {
        let kinds = (self.kind(&op.left), self.kind(&op.right));
        if let (Some(Kind::Text), Some(Kind::Number)) | (Some(Kind::Number), Some(Kind::Text)) = kinds {
            let message = "cannot calculate with a text; make it a number with `| float` or `| int`";
            self.flaw(message, source);
        }
    }
}
