//! The control loop: Kubernetes in, configuration push out. It knows kube and never pingora.

pub mod authenticate;
pub mod events;
pub mod grants;
pub mod index;
pub mod push;
pub mod state;
pub mod status;
pub mod watch;
