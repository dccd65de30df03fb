//! Route files as text, as a user would write them.

use std::net::SocketAddr;

/// A ModelServer with these endpoints; `extra` are further lines of its `spec`, unindented.
pub fn model_server(name: &str, endpoints: &[SocketAddr], extra: &str) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|address| format!("    - address: {address}\n"))
        .collect();
    let extra: String = extra.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelServer\nmetadata:\n  name: \
         {name}\nspec:\n  inferenceEngine: vLLM\n  endpoints:\n{endpoints}{extra}---\n"
    )
}

/// A ModelRoute with one rule: `targets` are pairs of ModelServer and weight.
pub fn model_route(name: &str, model: &str, targets: &[(&str, u32)]) -> String {
    let targets: String = targets
        .iter()
        .map(|(server, weight)| {
            format!("        - modelServerName: {server}\n          weight: {weight}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute\nmetadata:\n  name: \
         {name}\nspec:\n  modelName: {model}\n  rules:\n    - targetModels:\n{targets}---\n"
    )
}
