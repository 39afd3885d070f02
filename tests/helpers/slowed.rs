//! The event loop, made slower on purpose: what `compare` must notice, and, with 0 per cent, what it must not.
//!
//! `slowed PORT PERCENT` serves TCP on 127.0.0.1:PORT. Between turns of the loop it burns PERCENT of the processor time
//! that the server has used. The server is the library's, unchanged; the clock is read every sixteenth turn, so that
//! reading it costs next to nothing. Any signal ends the program.
//!
//! ```sh
//! echo-reactor compare --quick --models reactor --against-command 'target/release/examples/slowed {port} 10'
//! ```

use echo_reactor::{Limits, echo::Server};
use nix::time::{ClockId, clock_gettime};
use std::error::Error;

/// Turns between two readings of the clock.
const TURNS: u32 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, port, percent] = &words[..] else {
        return Err("usage: slowed PORT PERCENT".into());
    };
    let share = percent.parse::<f64>()? / 100.0;
    let address = format!("tcp://127.0.0.1:{port}");
    let mut server = Server::bind([address], Limits::default())?;
    // Processor time burned so far, in nanoseconds.
    let mut wasted = 0.0;
    loop {
        for _ in 0..TURNS {
            let _ = server.turn(None)?;
        }
        let used = processor_time()?;
        // used = useful + wasted, and wasted = share x useful.
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
