//! Numbers as Go prints and reads them.

/// A sample's value.
///
/// Most values on a page are counts that print as `123.0`, so these are read without the
/// general algorithm.
pub(super) fn value(token: &[u8]) -> Option<f64> {
    count(token).or_else(|| fast_float2::parse(token).ok())
}

/// `123` or `123.0`, exactly representable.
#[inline]
pub(super) fn count(token: &[u8]) -> Option<f64> {
    /// Below 2^53 whatever the digits.
    const MAX_DIGITS: usize = 15;
    let digits = token.strip_suffix(b".0").unwrap_or(token);
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })?;
    Some(number as f64)
}

/// A timestamp in milliseconds. One with a decimal point is in seconds: only OpenMetrics
/// writes these.
pub(super) fn timestamp_ms(token: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(token).ok()?;
    if let Ok(milliseconds) = text.parse() {
        return Some(milliseconds);
    }
    if !text.contains('.') {
        return None;
    }
    let seconds: f64 = fast_float2::parse(text).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which is as good as any answer")]
    Some((seconds * 1e3).round() as i64)
}
