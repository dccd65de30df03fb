//! The control loop: Kubernetes in, configuration push out. It knows kube and never pingora.

pub mod authenticate;
pub mod grants;
pub mod push;
pub mod state;
