//! All figures as one JSON object, under the names that `/metrics` has, for a page that draws them.

use std::sync::atomic::Ordering::Relaxed;

use antiphon_wire::codes::ErrorCode;
use serde_json::{Map, Value, json};

use super::{API_STATUSES, COUNTERS, Counter, GAUGES, HISTOGRAMS, LATENCY_BOUNDS_US, LatencyHistogram, Metrics};

impl Metrics {
    /// Every figure of the node: of the whole, by shard and by lane. Latencies and their bounds are in seconds, all else as `/metrics` has it.
    #[must_use]
    pub fn figures(&self) -> Value {
        let answers = API_STATUSES.iter().zip(&self.api_answers);
        let answers: Map<String, Value> =
            answers.map(|(class, count)| ((*class).to_owned(), count.get().into())).collect();
        let lanes = self.lanes.iter().enumerate().map(|(lane, status)| {
            json!({
                "lane": lane,
                "antiphon_lane_recovered": u8::from(status.recovered.load(Relaxed)),
                "antiphon_lane_fenced": u8::from(status.fenced.load(Relaxed)),
                "antiphon_lane_storage_full": u8::from(status.storage_full.load(Relaxed)),
            })
        });
        json!({
            "node": {
                "antiphon_memory_used_bytes": self.memory_used_bytes.get(),
                "antiphon_memory_limit_bytes": self.memory_limit_bytes.get(),
                "antiphon_memory_pressure": self.memory_pressure.get(),
                "antiphon_api_answers_total": answers,
            },
            "bounds_seconds": LATENCY_BOUNDS_US.map(seconds),
            "shards": (0..self.shards.len()).map(|shard| self.figures_of_shard(shard)).collect::<Vec<_>>(),
            "lanes": lanes.collect::<Vec<_>>(),
        })
    }

    fn figures_of_shard(&self, index: usize) -> Value {
        let shard = &self.shards[index];
        let mut all = Map::new();
        all.insert("shard".to_owned(), index.into());
        for (name, _, pick) in COUNTERS {
            all.insert(format!("antiphon_{name}_total"), pick(shard).get().into());
        }
        for (name, _, pick) in GAUGES {
            all.insert(format!("antiphon_{name}"), pick(shard).get().into());
        }
        for (name, _, pick) in HISTOGRAMS {
            all.insert(format!("antiphon_{}_seconds", name.trim_end_matches("_us")), histogram(pick(shard)));
        }
        let errors = ErrorCode::ALL.iter().map(|code| (code.name().to_owned(), shard.errors(*code).into()));
        all.insert("antiphon_errors_total".to_owned(), Value::Object(errors.collect()));
        Value::Object(all)
    }
}

/// How often each bucket was met, each for itself; the last has no upper bound.
fn histogram(of: &LatencyHistogram) -> Value {
    json!({"buckets": of.buckets.iter().map(Counter::get).collect::<Vec<_>>(), "sum": seconds(of.sum_us.get())})
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_the_name_and_the_value_that_the_text_has() {
        let metrics = Metrics::new(2, 1);
        for (number, shard) in (1..).zip(metrics.shards()) {
            shard.frames_in.add(number * 7);
            shard.set_errors(ErrorCode::NotFound, number);
            shard.connections.set(number * 3);
            shard.commit_latency_us.observe(120, number);
        }
        let (text, figures) = (metrics.render(), metrics.figures());
        let mut compared = 0;
        for (index, shard) in figures["shards"].as_array().unwrap().iter().enumerate() {
            for (name, value) in shard.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("antiphon_")) {
                let lines: Vec<String> = match value {
                    Value::Number(value) => vec![format!("{name}{{shard=\"{index}\"}} {value}")],
                    Value::Object(codes) if codes.contains_key("not_found") => codes
                        .iter()
                        .map(|(code, value)| format!("{name}{{shard=\"{index}\",code=\"{code}\"}} {value}"))
                        .collect(),
                    histogram => {
                        let buckets = histogram["buckets"].as_array().unwrap();
                        let count: u64 = buckets.iter().map(|count| count.as_u64().unwrap()).sum();
                        assert_eq!(buckets.len(), figures["bounds_seconds"].as_array().unwrap().len() + 1);
                        vec![format!("{name}_count{{shard=\"{index}\"}} {count}")]
                    }
                };
                for line in lines {
                    assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 100, "{compared}");
        for place in ["node", "lanes"] {
            let of = if place == "lanes" { &figures[place][0] } else { &figures[place] };
            let names = of.as_object().unwrap().keys().filter(|name| *name != "lane");
            assert!(names.into_iter().all(|name| text.contains(&format!("\n{name}"))), "{of}");
        }
    }
}
