//! temp
use echo_reactor::echo::Server;
fn main() {
    let a: Vec<_> = std::env::args()
        .skip(1)
        .map(|a| a.parse().unwrap())
        .collect();
    let limits = echo_reactor::Limits {
        idle_timeout: Some(std::time::Duration::from_secs(3600)),
        ..Default::default()
    };
    let mut s = Server::bind(&a, limits).unwrap();
    println!("{:?}", s.addresses());
    s.run().unwrap();
}
