//! N: peers that vanish, stop reading, lose packets or push urgent ones.
