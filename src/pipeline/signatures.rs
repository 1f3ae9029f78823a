//! Names and arguments of the filters, tests and methods that templates may call.

use minijinja::filters as engine;
use minijinja::value::Value;

use super::values::Kind;

/// The signature of a filter. The value that it is applied to is not counted as an argument.
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) min_args: usize,
    pub(super) max_args: usize,
    /// Names of its keyword arguments.
    pub(super) keywords: &'static [&'static str],
    /// The type of its result, if that is always the same.
    pub(super) result: Option<Kind>,
}

/// The number of arguments is not limited.
const UNLIMITED: usize = usize::MAX;

macro_rules! filters {
    ($($name:literal $min:tt..$max:tt [$($keyword:literal),*] $result:expr, $function:expr;)*) => {
        /// Every filter.
        pub(super) const FILTERS: &[Signature] = &[
            $(Signature {
                name: $name,
                min_args: $min,
                max_args: $max,
                keywords: &[$($keyword),*],
                result: $result,
            }),*
        ];

        /// Returns the engine's filters by name.
        pub(super) fn engine_filters() -> Vec<(&'static str, Value)> {
            vec![$(($name, Value::from_function($function))),*]
        }
    };
}

const TEXT: Option<Kind> = Some(Kind::Text);
const NUMBER: Option<Kind> = Some(Kind::Number);
const LIST: Option<Kind> = Some(Kind::List);

filters! {
    "safe" 0..0 [] TEXT, engine::safe;
    "escape" 0..0 [] TEXT, engine::escape;
    "e" 0..0 [] TEXT, engine::escape;
    "lower" 0..0 [] TEXT, engine::lower;
    "upper" 0..0 [] TEXT, engine::upper;
    "title" 0..0 [] TEXT, engine::title;
    "capitalize" 0..0 [] TEXT, engine::capitalize;
    "replace" 2..2 [] TEXT, engine::replace;
    "length" 0..0 [] NUMBER, engine::length;
    "count" 0..0 [] NUMBER, engine::length;
    "dictsort" 0..0 ["by", "case_sensitive", "reverse"] LIST, engine::dictsort;
    "items" 0..0 [] LIST, engine::items;
    "reverse" 0..0 [] None, engine::reverse;
    "trim" 0..1 [] TEXT, engine::trim;
    "join" 0..2 ["attribute", "d"] TEXT, engine::join;
    "split" 0..2 [] LIST, engine::split;
    "lines" 0..0 [] LIST, engine::lines;
    "default" 0..2 ["boolean"] None, engine::default;
    "d" 0..2 ["boolean"] None, engine::default;
    "round" 0..2 ["precision", "method"] NUMBER, engine::round;
    "abs" 0..0 [] NUMBER, engine::abs;
    "int" 0..2 ["default", "base"] None, engine::int;
    "float" 0..1 ["default"] None, engine::float;
    "attr" 1..1 [] None, engine::attr;
    "first" 0..0 [] None, engine::first;
    "last" 0..0 [] None, engine::last;
    "min" 0..0 ["case_sensitive", "attribute"] None, engine::min;
    "max" 0..0 ["case_sensitive", "attribute"] None, engine::max;
    "sort" 0..0 ["case_sensitive", "reverse", "attribute"] LIST, engine::sort;
    "list" 0..0 [] LIST, engine::list;
    "string" 0..0 [] TEXT, engine::string;
    "bool" 0..0 [] Some(Kind::Bool), engine::bool;
    "batch" 1..2 [] LIST, engine::batch;
    "slice" 1..2 [] LIST, engine::slice;
    "sum" 0..2 ["attribute", "start"] None, engine::sum;
    "indent" 0..3 ["width", "first", "blank"] TEXT, engine::indent;
    "select" 0..UNLIMITED [] LIST, engine::select;
    "reject" 0..UNLIMITED [] LIST, engine::reject;
    "selectattr" 1..UNLIMITED [] LIST, engine::selectattr;
    "rejectattr" 1..UNLIMITED [] LIST, engine::rejectattr;
    "map" 0..UNLIMITED ["attribute", "default"] LIST, engine::map;
    "groupby" 0..1 ["attribute", "default", "case_sensitive"] LIST, engine::groupby;
    "unique" 0..0 ["case_sensitive", "attribute"] LIST, engine::unique;
    "chain" 1..UNLIMITED [] None, engine::chain;
    "zip" 1..UNLIMITED [] LIST, engine::zip;
    "pprint" 0..0 [] TEXT, engine::pprint;
    "format" 0..UNLIMITED [] TEXT, engine::format;
    "tojson" 0..1 ["indent"] TEXT, engine::tojson;
}

/// Every test and its number of arguments.
pub(super) const TESTS: &[(&str, usize)] = &[
    ("undefined", 0),
    ("defined", 0),
    ("none", 0),
    ("safe", 0),
    ("escaped", 0),
    ("boolean", 0),
    ("odd", 0),
    ("even", 0),
    ("divisibleby", 1),
    ("number", 0),
    ("integer", 0),
    ("int", 0),
    ("float", 0),
    ("string", 0),
    ("sequence", 0),
    ("iterable", 0),
    ("mapping", 0),
    ("startingwith", 1),
    ("endingwith", 1),
    ("lower", 0),
    ("upper", 0),
    ("sameas", 1),
    ("eq", 1),
    ("equalto", 1),
    ("==", 1),
    ("ne", 1),
    ("!=", 1),
    ("lt", 1),
    ("lessthan", 1),
    ("<", 1),
    ("le", 1),
    ("<=", 1),
    ("gt", 1),
    ("greaterthan", 1),
    (">", 1),
    ("ge", 1),
    (">=", 1),
    ("in", 1),
    ("true", 0),
    ("false", 0),
    ("filter", 0),
    ("test", 0),
];

/// Every method of texts, lists and maps, as in Python, with the minimum and maximum number of arguments.
pub(super) const METHODS: &[(&str, usize, usize)] = &[
    ("upper", 0, 0),
    ("lower", 0, 0),
    ("islower", 0, 0),
    ("isupper", 0, 0),
    ("isspace", 0, 0),
    ("isdigit", 0, 0),
    ("isnumeric", 0, 0),
    ("isalnum", 0, 0),
    ("isalpha", 0, 0),
    ("isascii", 0, 0),
    ("strip", 0, 1),
    ("lstrip", 0, 1),
    ("rstrip", 0, 1),
    ("replace", 2, 3),
    ("title", 0, 0),
    ("split", 0, 2),
    ("splitlines", 0, 1),
    ("capitalize", 0, 0),
    ("count", 1, 1),
    ("find", 1, 1),
    ("format", 0, UNLIMITED),
    ("rfind", 1, 1),
    ("startswith", 1, 1),
    ("endswith", 1, 1),
    ("join", 1, 1),
    ("keys", 0, 0),
    ("values", 0, 0),
    ("items", 0, 0),
    ("get", 1, 2),
];

/// Returns the signature of a filter.
pub(super) fn filter(name: &str) -> Option<&'static Signature> {
    FILTERS.iter().find(|filter| filter.name == name)
}
