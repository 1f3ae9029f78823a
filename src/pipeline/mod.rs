//! Walks items through their steps: what comes in, what is asked, what goes out.

mod seen;
pub mod sink;
pub mod source;
