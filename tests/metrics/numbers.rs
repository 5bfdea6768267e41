//! The text that Prometheus reads, as numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::runtime::Builder;

use crate::example;

static RECORDER: LazyLock<PrometheusHandle> =
    LazyLock::new(|| example::install_recorder().unwrap());
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn recorder() -> PrometheusHandle {
    RECORDER.clone()
}

/// A series: its name, and its labels by name.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// What there is to read just now.
pub(crate) fn read() -> BTreeMap<Series, f64> {
    let text = RECORDER.render();
    let lines = text.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| series(line).unwrap_or_else(|| panic!("not a number: {line}")))
        .collect()
}

/// No label here has a comma, a quote or a brace in its value.
fn series(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let labels = labels.split(',').filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    let labels = labels.collect::<Option<_>>()?;
    Some(((name.to_owned(), labels), value.parse().ok()?))
}

/// Runs a test under a clock of its own while no other runs, until all that it has left behind is gone.
pub(crate) fn alone(test: impl AsyncFnOnce(Changes)) {
    let _turn = TURN.lock();
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test(Changes::since_now()));
}

/// What changes during a test.
pub(crate) struct Changes {
    before: BTreeMap<Series, f64>,
}

impl Changes {
    fn since_now() -> Self {
        Self { before: read() }
    }

    /// From here on.
    pub(crate) fn again(self) -> Self {
        Self::since_now()
    }

    /// By how much the series with this name and exactly these labels has grown.
    pub(crate) fn of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let series = (name.to_owned(), labels.collect());
        let value = |numbers: &BTreeMap<_, _>| numbers.get(&series).copied().unwrap_or(0.0);
        value(&read()) - value(&self.before)
    }

    /// The names of what has changed, without buckets.
    pub(crate) fn all(&self) -> BTreeSet<String> {
        let changed = read()
            .into_iter()
            .filter(|(series, value)| self.before.get(series).copied().unwrap_or(0.0) != *value);
        let names = changed.map(|((name, _), _)| name);
        names
            .filter(|name| !name.ends_with("_bucket") && !name.ends_with("_sum"))
            .collect()
    }
}
