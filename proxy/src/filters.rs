//! The filter chain: the extension seam of the gateway.
