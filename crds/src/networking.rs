//! Group `networking.serving.volcano.sh/v1alpha1`: who is served where.

#![expect(
    unreachable_pub,
    reason = "the schema derive copies each struct, `pub` and all, into a function"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

mod external_model_provider;
mod model_route;
mod model_server;
mod scheduling;

pub use external_model_provider::*;
pub use model_route::*;
pub use model_server::*;
pub use scheduling::*;

/// API group of the kinds in this module.
pub const GROUP: &str = "networking.serving.volcano.sh";
/// The one version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";
