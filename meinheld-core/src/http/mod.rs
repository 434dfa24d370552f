//! HTTP/1.1 on bytes alone: nothing here performs input or output, or knows a clock.
