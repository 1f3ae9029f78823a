//! What a format cannot express: refused by name before the call, or dropped where the configuration says so.

use crate::types::{Class, Failure, FailureScope, Format};

use super::{Dialect, DropParameter};

/// Drops a parameter that the format cannot express, if the configuration says so.
///
/// # Errors
/// `api_error` otherwise. Another target may accept the request.
pub(super) fn drop_or_refuse(
    format: Format,
    dialect: &Dialect,
    parameter: DropParameter,
) -> Result<(), Failure> {
    if dialect.drops(parameter) {
        return Ok(());
    }
    let name = parameter.as_str();
    Err(refusal(format!(
        "{} cannot express {name}; remove it, or add \"{name}\" to drop_parameters of the provider",
        format.title()
    )))
}

/// Returns the failure of a request that a target cannot take for this reason. Another target may.
pub(super) fn refusal(message: impl Into<Box<str>>) -> Failure {
    Failure::new(Class::ApiError, message).with_scope(FailureScope::Target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_refused_by_name_or_dropped() {
        let refused =
            drop_or_refuse(Format::Anthropic, &Dialect::default(), DropParameter::Seed).unwrap_err();
        assert_eq!((refused.class, refused.scope), (Class::ApiError, FailureScope::Target));
        assert_eq!(
            &*refused.message,
            "Anthropic's format cannot express seed; remove it, or add \"seed\" to drop_parameters of the provider"
        );
        let dialect = Dialect { drop_parameters: vec![DropParameter::Seed], ..Dialect::default() };
        assert_eq!(drop_or_refuse(Format::Anthropic, &dialect, DropParameter::Seed), Ok(()));
        assert!(drop_or_refuse(Format::Anthropic, &dialect, DropParameter::Stop).is_err());
    }
}
