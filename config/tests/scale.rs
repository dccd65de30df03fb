//! A large configuration compiles whole. How long that takes is measured by benches/benches/routing.rs.

use std::fmt::Write;

use sluice_config::{Catalog, FilterSet, LoadedDocuments};

/// 1,000 routes over 1,000 ModelServers of 10 endpoints each.
fn text() -> String {
    let mut text = String::new();
    for n in 0..1000 {
        write!(
            text,
            "---\napiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute\n\
             metadata: {{name: route-{n}}}\nspec:\n  modelName: model-{n}\n  rules:\n  - modelMatch:\n      \
             headers: {{x-tenant: {{regex: '^team-[0-9]+$'}}}}\n    targetModels:\n    \
             - {{modelServerName: pool-{n}, weight: 90}}\n    - {{modelServerName: pool-0, weight: 10}}\n\
             ---\napiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelServer\n\
             metadata: {{name: pool-{n}}}\nspec:\n  inferenceEngine: vLLM\n  endpoints:\n"
        )
        .expect("a String takes all");
        for e in 0..10 {
            writeln!(text, "  - address: 10.{}.{}.{e}:8000", n / 250, n % 250)
                .expect("a String takes all");
        }
    }
    text
}

#[test]
fn a_large_configuration_compiles_whole() {
    let loaded = LoadedDocuments::from_text("f.yaml", &text());
    let update = Catalog::new(FilterSet::unknown()).update(loaded, 1);
    let endpoints: usize = update
        .snapshot
        .servers
        .iter()
        .map(|server| server.endpoints.len())
        .sum();
    assert_eq!(
        (
            update.snapshot.routes.len(),
            endpoints,
            update.problems.len()
        ),
        (1000, 10_000, 0)
    );
}
