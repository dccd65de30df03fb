//! The control loop: Kubernetes in, configuration push out. It knows kube and never pingora.

pub mod events;
pub mod index;
pub mod state;
pub mod status;
pub mod watch;
