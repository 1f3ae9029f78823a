//! Refuses template source that is nested so deeply that parsing it, or dropping what was parsed, could overflow
//! the stack.
//!
//! A chain such as `a + b + c` is a tree as deep as it is long, which the engine's parser does not count.

use minijinja::machinery::{Token, tokenize};

use super::facts::Flaw;

/// Operators and brackets around one another.
const DEEPEST: usize = 100;
/// Statements around one another, with every `elif` of an `if`.
const DEEPEST_BLOCKS: usize = 100;

/// Checks a template, or an expression.
pub(super) fn check(source: &str, is_expression: bool) -> Result<(), Flaw> {
    // For each open bracket, the operators in it since the last comma.
    let mut levels: Vec<usize> = vec![0];
    let mut operators: usize = 0;
    let mut blocks: Vec<usize> = Vec::new();
    let mut opened = false;
    for token in tokenize(source, is_expression, Default::default()) {
        // A token that is none is the parser's to explain.
        let Ok((token, span)) = token else { return Ok(()) };
        let range = span.start_offset as usize..span.end_offset as usize;
        match &token {
            Token::VariableStart | Token::BlockStart => {
                levels = vec![0];
                operators = 0;
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                levels.push(1);
                operators += 1;
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                // A call or a subscript is one more operation on what stands before it.
                let closed = levels.pop().unwrap_or(0);
                operators = operators.saturating_sub(closed) + 1;
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
            }
            Token::Comma => {
                if let Some(level) = levels.last_mut() {
                    operators = operators.saturating_sub(std::mem::take(level));
                }
            }
            Token::Ident("and" | "or" | "not" | "is" | "in" | "if" | "else")
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::FloorDiv
            | Token::Pow
            | Token::Mod
            | Token::Dot
            | Token::Tilde
            | Token::Pipe
            | Token::Eq
            | Token::Ne
            | Token::Gt
            | Token::Gte
            | Token::Lt
            | Token::Lte => {
                operators += 1;
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
            }
            _ => {}
        }
        if opened {
            match &token {
                Token::Ident(
                    "for" | "if" | "with" | "autoescape" | "filter" | "block" | "macro" | "call" | "set",
                ) => {
                    blocks.push(1);
                }
                Token::Ident("elif") => {
                    if let Some(block) = blocks.last_mut() {
                        *block += 1;
                    }
                }
                Token::Ident(name) if name.starts_with("end") => {
                    blocks.pop();
                }
                _ => {}
            }
        }
        // A `set` with a value has no end.
        if matches!(token, Token::Assign) && levels.len() == 1 && !is_expression {
            set_is_no_block(&mut blocks, source, &range);
        }
        opened = matches!(token, Token::BlockStart);
        if operators > DEEPEST {
            let message =
                format!("more than {DEEPEST} operations in one another; use {{% set %}} for parts of it");
            return Err(Flaw { message, range: Some(range) });
        }
        if blocks.iter().sum::<usize>() > DEEPEST_BLOCKS {
            let message = format!("more than {DEEPEST_BLOCKS} statements in one another");
            return Err(Flaw { message, range: Some(range) });
        }
    }
    Ok(())
}

/// Takes back the block of `{% set x = .. %}`.
fn set_is_no_block(blocks: &mut Vec<usize>, source: &str, assign: &std::ops::Range<usize>) {
    let before = source.get(..assign.start).unwrap_or_default();
    let statement =
        before.rfind("{%").map_or("", |at| before[at + 2..].trim_start_matches(['-', '+']).trim_start());
    if statement.starts_with("set ") || statement.starts_with("set\n") || statement.starts_with("set\t") {
        blocks.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_that_is_nested_too_deeply_is_refused_and_long_lists_are_not() {
        let many = |part: &str, join: &str, count: usize| vec![part; count].join(join);
        for deep in [
            many("a", "+", 100_000),
            many("a", ".", 100_000),
            many("a", "|", 100_000),
            many("a", " and ", 100_000),
            format!("{}a", "not ".repeat(100_000)),
            format!("{}a", "-".repeat(100_000)),
            format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("a{}", "[0]".repeat(100_000)),
            format!("a{}", "()".repeat(100_000)),
            format!("{}a", "a if a else ".repeat(100_000)),
        ] {
            assert!(check(&deep, true).is_err(), "{}", &deep[..20]);
            assert!(check(&format!("{{{{ {deep} }}}}"), false).is_err(), "{}", &deep[..20]);
        }
        for wide in [format!("[{}]", many("a.b", ",", 100_000)), many("a == 1", " or ", 50)] {
            assert!(check(&wide, true).is_ok(), "{}", &wide[..20]);
        }
        assert!(check(&"{% set x = a + b %}".repeat(1000), false).is_ok());
        assert!(check(&"{{ a + b }}{% if a %}{% endif %}".repeat(1000), false).is_ok());
        assert!(check(&"{% if a %}".repeat(1000), false).is_err());
        assert!(check(&format!("{{% if a %}}{}", "{% elif a %}".repeat(100_000)), false).is_err());
    }
}
