//! Describes a place where a document differs from its schema: what was expected there, and what was found.

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;

use super::super::{
    limits::{NEAREST_KEYS_MAX, SHOWN_ALTERNATIVES_MAX},
    nearest::among,
    shown,
};

/// The expected value, as text that begins with `wanted`.
pub(super) fn expected(error: &ValidationError) -> String {
    format!("wanted {}", wanted(error))
}

/// The found value, as text.
pub(super) fn found(error: &ValidationError) -> String {
    let instance = error.instance().as_ref();
    // The whole path decides about secrets: a value below `passwords` is one too.
    let found = shown::found(&error.instance_path().to_string(), instance);
    match (error.kind(), instance) {
        (Kind::MaxLength { .. } | Kind::MinLength { .. }, Value::String(text)) => format!("{} characters", text.chars().count()),
        (Kind::MaxProperties { .. } | Kind::MinProperties { .. }, Value::Object(entries)) => format!("{} keys", entries.len()),
        (Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected }, _) => {
            shown::keys(unexpected.iter().map(String::as_str))
        }
        (Kind::Required { property }, Value::Object(entries)) => {
            let missing = property.as_str().unwrap_or_default();
            match among(missing, entries.keys().take(NEAREST_KEYS_MAX).map(String::as_str)) {
                Some(key) => format!("{found} (`{}` may be meant by {})", shown::name(missing), shown::keys([key].into_iter())),
                None => found,
            }
        }
        (Kind::PropertyNames { error }, _) => shown::found("", error.instance()),
        (Kind::UniqueItems | Kind::Custom { .. }, Value::Array(_)) => format!("one twice in {found}"),
        _ => found,
    }
}

fn wanted(error: &ValidationError) -> String {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(kind) } => article(kind.as_str()),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => kinds.iter().map(|kind| article(kind.as_str())).collect::<Vec<_>>().join(" or "),
        Kind::Required { property } => format!("the key `{}`", property.as_str().unwrap_or_default()),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => "no key that the schema does not name".to_owned(),
        Kind::AdditionalItems { limit } => format!("at most {limit} items"),
        Kind::UnevaluatedItems { .. } => "no item that the schema does not name".to_owned(),
        Kind::Enum { options } => match options.as_ref() {
            Value::Array(options) => format!("one of {}", options.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
            option => option.to_string(),
        },
        Kind::Constant { expected_value } => expected_value.to_string(),
        Kind::Minimum { limit } => format!("at least {limit}"),
        Kind::Maximum { limit } => format!("at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("at least {limit} characters"),
        Kind::MaxLength { limit } => format!("at most {limit} characters"),
        Kind::MinItems { limit } => format!("at least {limit} items"),
        Kind::MaxItems { limit } => format!("at most {limit} items"),
        Kind::MinProperties { limit } => format!("at least {limit} keys"),
        Kind::MaxProperties { limit } => format!("at most {limit} keys"),
        Kind::Pattern { pattern } => format!("a text that matches `{pattern}`"),
        Kind::Format { format } => format!("a text in the format `{format}`"),
        Kind::Contains => "an item of the kind that `contains` names".to_owned(),
        Kind::FalseSchema => "nothing here".to_owned(),
        Kind::Not { .. } => "nothing that matches `not`".to_owned(),
        Kind::OneOfMultipleValid { .. } => "what matches one alternative of `oneOf` and no other".to_owned(),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => alternatives(context),
        Kind::PropertyNames { error } => format!("for the name of each key {}", wanted(error)),
        Kind::UniqueItems => "each item once".to_owned(),
        // The validator's own words, without the found value.
        Kind::Custom { message, .. } => message.strip_prefix("wanted ").unwrap_or(message).to_owned(),
        _ => error.masked().to_string(),
    }
}

/// The first thing that each alternative lacks, with its place below this one.
fn alternatives(context: &[Vec<ValidationError<'static>>]) -> String {
    let each = context.iter().take(SHOWN_ALTERNATIVES_MAX).filter_map(|errors| {
        let first = errors.first()?;
        let place = first.instance_path().to_string();
        Some(if place.is_empty() { wanted(first) } else { format!("{} at `{}`", wanted(first), shown::pointer(&place)) })
    });
    let mut each: Vec<_> = each.collect();
    each.dedup();
    let more = context.len().saturating_sub(SHOWN_ALTERNATIVES_MAX);
    let and = if more > 0 { format!(", or one of {more} more alternatives") } else { String::new() };
    match each.is_empty() {
        true => "one of the schema's alternatives".to_owned(),
        false => format!("{}{and}", each.join(", or ")),
    }
}

fn article(kind: &str) -> String {
    match kind {
        "null" => "null".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => "a text (string)".to_owned(),
        "array" => "a list (array)".to_owned(),
        "object" | "integer" => format!("an {kind}"),
        other => format!("a {other}"),
    }
}
