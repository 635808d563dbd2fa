//! Quantiles of single measurements.

/// The value below which that share of the values lies, interpolated between the two nearest; NaN if there are none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = last as f64 * share;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The values as text for a note, with three decimals each.
pub(crate) fn listed(values: &[f64]) -> String {
    let each: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    each.join(" ")
}
