//! The event loop, made slower on purpose: what `compare` must notice, and, with 0 per cent, what it must not.
//!
//! `slowed PORT PERCENT` serves TCP on 127.0.0.1:PORT. So many per cent of the processor time that the server uses is
//! used once more, for nothing, between two turns of the loop. It is the server of the library, unchanged; the clock is
//! looked at every sixteenth turn, so that looking costs next to nothing. It ends by any signal.
//!
//! ```sh
//! echo-reactor compare --quick --models reactor --against-command 'target/release/examples/slowed {port} 10'
//! ```

use echo_reactor::{Limits, echo::Server};
use nix::time::{ClockId, clock_gettime};
use std::error::Error;

/// Turns between two looks at the clock.
const TURNS: u32 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, port, percent] = &words[..] else {
        return Err("usage: slowed PORT PERCENT".into());
    };
    let share = percent.parse::<f64>()? / 100.0;
    let address = format!("tcp://127.0.0.1:{port}").parse()?;
    let mut server = Server::bind(&[address], Limits::default())?;
    // What was used so far, what of it was for nothing, both in nanoseconds.
    let mut wasted = 0.0;
    loop {
        for _ in 0..TURNS {
            let _ = server.turn(None)?;
        }
        let used = processor_time()?;
        // All = useful + wasted, and wasted = share x useful.
        let unsent = (used - wasted) * share;
        if unsent > wasted {
            let until = used + (unsent - wasted);
            while processor_time()? < until {
                for _ in 0..100 {
                    std::hint::spin_loop();
                }
            }
            wasted = unsent;
        }
    }
}

fn processor_time() -> Result<f64, Box<dyn Error>> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
