//! Whether an object in the cluster still says what we want of it.

use serde_json::Value;

/// Whether `observed` holds everything that `desired` holds. What is only in `observed` is
/// someone else's and doesn't count; lists must match entry by entry.
pub(super) fn covers(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            let same = if key == "tolerance" { same_quantity } else { covers };
            observed.get(key).is_some_and(|observed| same(observed, desired))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len()
                && observed.iter().zip(desired).all(|(observed, desired)| covers(observed, desired))
        }
        _ => observed == desired,
    }
}

/// Whether two Kubernetes quantities are the same number. The API machinery may write one
/// that we wrote as `0.1` as `100m`.
fn same_quantity(observed: &Value, desired: &Value) -> bool {
    observed == desired || quantity(observed).is_some_and(|number| Some(number) == quantity(desired))
}

/// A small quantity in thousand-millionths, the finest that Kubernetes keeps.
fn quantity(value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (number, scale) = match text.as_bytes().last()? {
        b'm' => (&text[..text.len() - 1], 1e6),
        b'u' => (&text[..text.len() - 1], 1e3),
        b'n' => (&text[..text.len() - 1], 1.0),
        _ => (text.as_str(), 1e9),
    };
    let nanos = number.parse::<f64>().ok()? * scale;
    #[expect(clippy::cast_possible_truncation, reason = "a tolerance is far below 2^63 thousand-millionths")]
    nanos.is_finite().then(|| nanos.round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_wanted_is_compared() {
        for (observed, desired, same) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"y": 2}}), true),
            (json!({"a": [{"x": 1, "y": 2}]}), json!({"a": [{"x": 1}]}), true),
            (json!({"a": [1, 2]}), json!({"a": [1]}), false),
            (json!({"a": [2, 1]}), json!({"a": [1, 2]}), false),
            (json!({"a": null}), json!({"a": {"x": 1}}), false),
            (json!({"a": "1"}), json!({"a": 1}), false),
        ] {
            assert_eq!(covers(&observed, &desired), same, "{observed} {desired}");
        }
    }

    #[test]
    fn a_tolerance_is_a_quantity() {
        for (observed, desired, same) in [
            (json!("0.1"), json!("0.1"), true),
            (json!("100m"), json!("0.1"), true),
            (json!("100000u"), json!("0.1"), true),
            (json!("100000000n"), json!("0.1"), true),
            (json!(0), json!("0"), true),
            (json!("101m"), json!("0.1"), false),
            (json!("0.10000001"), json!("0.1"), false),
            (json!("é"), json!("0.1"), false),
            (json!(""), json!("0.1"), false),
            (json!(null), json!("0.1"), false),
        ] {
            let in_object = |tolerance| json!({"tolerance": tolerance});
            assert_eq!(covers(&in_object(observed.clone()), &in_object(desired)), same, "{observed}");
        }
    }
}
