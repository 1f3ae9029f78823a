//! Whole pipelines: read from text, and walked by items.

mod documented;
mod faults;
mod loading;
mod property;
mod walking;

use std::path::Path;
use std::sync::Arc;

use crate::document::Faults;
use crate::types::RouteName;

use super::{Defaults, Pipeline};

fn parse(text: &str) -> Result<Pipeline, Faults> {
    let routes = ["cheap", "strong"].map(RouteName::from);
    let defaults = Defaults { route: Some(routes[0].clone()), ..Defaults::default() };
    Pipeline::parse("pipeline.toml", text, Path::new("/pipelines"), &defaults, &routes)
}

fn pipeline(text: &str) -> Arc<Pipeline> {
    Arc::new(parse(text).unwrap_or_else(|faults| panic!("{}", faults.render(false))))
}
