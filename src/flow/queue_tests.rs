//! Tests of the flow queue.
