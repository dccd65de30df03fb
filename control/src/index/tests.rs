mod any;
mod incremental;
mod scenes;
