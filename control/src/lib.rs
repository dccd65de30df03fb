//! The control loop: Kubernetes in, configuration push out. It knows kube and never pingora.
//! Nothing of it is needed to serve from files, so this room is still empty.
