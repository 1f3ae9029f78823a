//! Writes the rewritten text and its source map, and keeps the scopes, references and errors of the template.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::ops::Range;

use minijinja::machinery::Span;
use minijinja::machinery::ast::Expr;
use minijinja::value::{Value, ValueKind};

use crate::pipeline::symbols::{CompileError, References, SymbolInfo};

/// A rewritten template.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) text: String,
    pub(crate) source_map: SourceMap,
    pub(crate) references: References,
    /// The text before the first expression or statement of a template, without comments.
    pub(crate) constant_beginning: String,
}

/// Ranges of the rewritten text, each with its range in the source.
#[derive(Debug, Default)]
pub(crate) struct SourceMap(Vec<(Range<usize>, Range<usize>)>);

impl SourceMap {
    /// Returns the source of the smallest mapped range that contains `rewritten`.
    pub(crate) fn source_of(&self, rewritten: &Range<usize>) -> Option<Range<usize>> {
        let containing =
            self.0.iter().filter(|(part, _)| part.start <= rewritten.start && rewritten.end <= part.end);
        containing.min_by_key(|(part, _)| part.len()).map(|(_, source)| source.clone())
    }
}

/// Writes a template's syntax tree out again.
pub(super) struct Rewriter<'s, 'f> {
    pub(super) symbols: &'f dyn SymbolInfo,
    pub(super) out: String,
    source_map: Vec<(Range<usize>, Range<usize>)>,
    scopes: Vec<HashSet<&'s str>>,
    pub(super) variables: BTreeMap<String, Range<usize>>,
    pub(super) paths: BTreeMap<String, Range<usize>>,
    errors: Vec<CompileError>,
}

pub(super) fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Returns the source range of an expression. The spans of the parser begin at an earlier token for some
/// expressions.
pub(super) fn source_range(expr: &Expr<'_>) -> Range<usize> {
    let own = range(expr.span());
    let start = match expr {
        Expr::BinOp(op) => source_range(&op.left).start,
        Expr::Compare(compare) => source_range(&compare.expr).start,
        Expr::IfExpr(choice) => source_range(&choice.true_expr).start,
        Expr::Test(test) => source_range(&test.expr).start,
        Expr::Filter(filter) => filter.expr.as_ref().map_or(own.start, |inner| source_range(inner).start),
        Expr::GetAttr(attr) => source_range(&attr.expr).start,
        Expr::GetItem(item) => source_range(&item.expr).start,
        Expr::Slice(slice) => source_range(&slice.expr).start,
        Expr::Call(call) => source_range(&call.expr).start,
        _ => own.start,
    };
    start..own.end.max(start)
}

impl<'s, 'f> Rewriter<'s, 'f> {
    pub(super) fn new(source: &str, symbols: &'f dyn SymbolInfo) -> Self {
        Self {
            symbols,
            out: String::with_capacity(source.len() * 2),
            source_map: Vec::new(),
            scopes: vec![HashSet::new()],
            variables: BTreeMap::new(),
            paths: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Result<Rewritten, Vec<CompileError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let references = References { variables: self.variables, paths: self.paths };
        let source_map = SourceMap(self.source_map);
        Ok(Rewritten { text: self.out, source_map, references, constant_beginning: String::new() })
    }

    pub(super) fn error(&mut self, message: impl Into<String>, range: Range<usize>) {
        self.errors.push(CompileError { message: message.into(), range: Some(range) });
    }

    pub(super) fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Calls `write` and maps the text that it writes to `source`.
    pub(super) fn mapped(&mut self, source: Range<usize>, write: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        write(self);
        self.source_map.push((start..self.out.len(), source));
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

    /// Writes a literal.
    pub(super) fn constant(&mut self, value: &Value) {
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                // Writing to a `String` cannot fail.
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if number.is_finite() => {
                    // Writing to a `String` cannot fail.
                    let _ = write!(self.out, "{number:?}");
                }
                _ => self.put("1e999"),
            },
            _ => self.put("none"),
        }
    }

    /// Writes a text as a string literal.
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
