//! The implementation of mio's `Source` for sockets that contain one.

/// Implements mio's `Source` for a type by forwarding the three calls to what its method `source` returns.
macro_rules! register_by_source {
    ($socket:ty) => {
        impl mio::event::Source for $socket {
            fn register(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().register(registry, token, interest)
            }

            fn reregister(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().reregister(registry, token, interest)
            }

            fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
                self.source().deregister(registry)
            }
        }
    };
}

pub(super) use register_by_source;
