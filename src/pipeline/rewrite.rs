//! Rewrites a template so that it does only what the pipeline can answer for.
//!
//! The engine's operators order values of different kinds, pass missing fields on, and build texts of any size. None
//! of that can be configured. So a template is parsed to the engine's own syntax tree, and that is written out again
//! with every operator as a call of a filter of [`operators`](super::operators): `a < b` becomes `a|__lt(b)`, and a
//! field that may be missing `item.x|__v`. The engine compiles the result like any other template. Text between tags
//! becomes `{{ ".." }}`, so that the meter counts it wherever it is written to. A list of ranges leads from what is
//! written back to the source, for errors.
//!
//! The same walk finds which names a template uses, in the scopes of the language, and what would fail for every
//! item: unknown filters, tests and methods, wrong arguments, and comparisons of kinds that cannot be compared.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use minijinja::machinery::ast::Expr;
use minijinja::machinery::{Span, parse, parse_expr};

use super::facts::{Facts, Flaw, Mentions};
use super::nesting;

/// A template that was written again.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) text: String,
    pub(super) origins: Origins,
    pub(super) mentions: Mentions,
}

/// Ranges of the written text and of the source that they come from.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<(Range<usize>, Range<usize>)>);

impl Origins {
    /// Returns the source of the smallest part around `written`.
    pub(super) fn of(&self, written: &Range<usize>) -> Option<Range<usize>> {
        let around = self.0.iter().filter(|(part, _)| part.start <= written.start && written.end <= part.end);
        around.min_by_key(|(part, _)| part.len()).map(|(_, source)| source.clone())
    }
}

/// Names that mean something else than a variable of the pipeline.
pub(super) const LANGUAGE: [&str; 6] = ["loop", "self", "super", "caller", "varargs", "kwargs"];

/// Rewrites a template.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn template(source: &str, facts: &dyn Facts) -> Result<Rewritten, Vec<Flaw>> {
    nesting::check(source, false).map_err(|flaw| vec![flaw])?;
    let parsed = parse(source, "", Default::default()).map_err(|error| vec![Flaw::of(&error)])?;
    let mut rewriter = Rewriter::new(source, facts);
    rewriter.statement(&parsed);
    rewriter.finish()
}

/// Rewrites a condition to a template that writes `1` where it holds.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn condition(source: &str, facts: &dyn Facts) -> Result<Rewritten, Vec<Flaw>> {
    nesting::check(source, true).map_err(|flaw| vec![flaw])?;
    let parsed = parse_expr(source).map_err(|error| vec![Flaw::of(&error)])?;
    let mut rewriter = Rewriter::new(source, facts);
    rewriter.out.push_str("{% if ");
    rewriter.strict(&parsed);
    rewriter.out.push_str(" %}1{% endif %}");
    rewriter.finish()
}

/// Walks a template's syntax tree and writes it out again.
pub(super) struct Rewriter<'s, 'f> {
    pub(super) facts: &'f dyn Facts,
    pub(super) out: String,
    pub(super) origins: Vec<(Range<usize>, Range<usize>)>,
    pub(super) scopes: Vec<HashSet<&'s str>>,
    pub(super) variables: BTreeMap<String, Range<usize>>,
    pub(super) paths: BTreeMap<String, Range<usize>>,
    pub(super) flaws: Vec<Flaw>,
}

pub(super) fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Returns where an expression stands. The parser counts from the token before in places.
pub(super) fn place(expr: &Expr<'_>) -> Range<usize> {
    let own = range(expr.span());
    let start = match expr {
        Expr::BinOp(op) => place(&op.left).start,
        Expr::Compare(compare) => place(&compare.expr).start,
        Expr::IfExpr(choice) => place(&choice.true_expr).start,
        Expr::Test(test) => place(&test.expr).start,
        Expr::Filter(filter) => filter.expr.as_ref().map_or(own.start, |inner| place(inner).start),
        Expr::GetAttr(attr) => place(&attr.expr).start,
        Expr::GetItem(item) => place(&item.expr).start,
        Expr::Slice(slice) => place(&slice.expr).start,
        Expr::Call(call) => place(&call.expr).start,
        _ => own.start,
    };
    start..own.end.max(start)
}

impl<'s, 'f> Rewriter<'s, 'f> {
    fn new(source: &str, facts: &'f dyn Facts) -> Self {
        Self {
            facts,
            out: String::with_capacity(source.len() * 2),
            origins: Vec::new(),
            scopes: vec![HashSet::new()],
            variables: BTreeMap::new(),
            paths: BTreeMap::new(),
            flaws: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Result<Rewritten, Vec<Flaw>> {
        if !self.flaws.is_empty() {
            return Err(self.flaws);
        }
        let mentions = Mentions { variables: self.variables, paths: self.paths };
        Ok(Rewritten { text: self.out, origins: Origins(self.origins), mentions })
    }

    pub(super) fn flaw(&mut self, message: impl Into<String>, range: Range<usize>) {
        self.flaws.push(Flaw { message: message.into(), range: Some(range) });
    }

    pub(super) fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Writes with `write`, and remembers that it comes from `source`.
    pub(super) fn from(&mut self, source: Range<usize>, write: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        write(self);
        self.origins.push((start..self.out.len(), source));
    }

    pub(super) fn is_bound(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(name))
    }

    pub(super) fn bind_name(&mut self, name: &'s str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name);
        }
    }

    pub(super) fn scoped(&mut self, write: impl FnOnce(&mut Self)) {
        self.scopes.push(HashSet::new());
        write(self);
        self.scopes.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::facts::NoFacts;

    #[test]
    fn operators_become_filters_and_the_rest_stays() {
        let written = |source| condition(source, &NoFacts).unwrap().text;
        assert_eq!(written("item.a < 3"), "{% if item.a|__v|__lt(3) %}1{% endif %}");
        assert_eq!(written("not a == none"), "{% if (not (a is none)) %}1{% endif %}");
        assert_eq!(written("a ~ 'b\"' ~ 1"), "{% if a|__cat(\"b\\\"\")|__cat(1) %}1{% endif %}");
        let text = template("a{% for x in item.l %}{{ x.y }}{% endfor %}\n", &NoFacts).unwrap().text;
        assert_eq!(text, "{{ \"a\" }}{% for x in item.l|__v %}{{ \"\" }}{{ x.y|__v }}{% endfor %}");
    }

    #[test]
    fn source_that_would_not_pass_through_unchanged_is_found() {
        let mentions = template("{% raw %}{{ a }}{% endraw %}{{ b['c'].d }}", &NoFacts).unwrap().mentions;
        assert_eq!(mentions.variables.keys().collect::<Vec<_>>(), ["b"]);
    }
}
