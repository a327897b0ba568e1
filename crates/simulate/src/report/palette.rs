//! Which colour a policy has, on every page the same.

/// The classes of a policy's line and of its dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ink {
    /// Colour, width and dashes.
    pub line: &'static str,
    /// Colour alone.
    pub dot: &'static str,
}

/// The colours of a policy; `index` tells those apart that are not known by name.
#[must_use]
pub fn ink(policy: &str, index: usize) -> Ink {
    const OTHERS: [Ink; 4] = [
        Ink { line: "four dashed", dot: "four" },
        Ink { line: "five dashed", dot: "five" },
        Ink { line: "six dashed", dot: "six" },
        Ink { line: "seven dashed", dot: "seven" },
    ];
    let (line, dot) = match policy {
        "latency" => ("one thick", "one"),
        "demand" => ("three thick", "three"),
        "waiting" => ("two", "two"),
        "waiting-k8s" => ("two dashed", "two"),
        "concurrency" => ("four", "four"),
        "kv" => ("six", "six"),
        "queue-kv" => ("six dashed", "six"),
        "velocity" => ("seven", "seven"),
        "slo-loop" => ("five", "five"),
        "static" => ("eight", "eight"),
        "clairvoyant" => ("text dotted", "text"),
        _ => return OTHERS[index % OTHERS.len()],
    };
    Ink { line, dot }
}

/// What a policy does, for people who see its name for the first time.
#[must_use]
pub fn meaning(policy: &str) -> Option<&'static str> {
    Some(match policy {
        "latency" => "engine time learned from counters, held to the targets",
        "demand" => "running + waiting + held + refused, a target a replica",
        "waiting" => {
            "requests waiting, steps of 1 pod per 300 s up and 600 s down: the existing scaler's default"
        }
        "waiting-k8s" => "requests waiting, Kubernetes' default steps",
        "concurrency" => "running + waiting, one target a replica",
        "kv" => "KV cache usage",
        "queue-kv" => "queue and KV cache with headroom",
        "velocity" => "tokens a second against what a replica can do",
        "slo-loop" => "more while TTFT or ITL miss, fewer while both are far below",
        "static" => "a fixed number of replicas",
        "clairvoyant" => "knows the future and pays cold starts: the limit",
        _ => return None,
    })
}
