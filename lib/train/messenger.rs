//! The thread of a rank that makes all its calls of MPI. Sums go on there while the other threads compute.

use ferrompi::{Communicator, Mpi, Request, Result, ThreadLevel, scope};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Between two looks at a sum that nobody waits for yet. At 10 Gb/s 64 KB come in this time, as much as a socket keeps.
const PAUSE: Duration = Duration::from_micros(50);

/// What the other threads ask for.
pub enum Call {
    /// What each rank gives, in the order of ranks.
    Gather(Vec<u8>),
    /// Each value added up over the ranks, in their order.
    Sum(Vec<f32>),
    /// The end of all ranks, with this exit code.
    Abort(u8),
}

/// The thread's end of the channels.
pub struct Messenger {
    pub calls: Receiver<Call>,
    pub gathered: Sender<Result<Vec<u8>>>,
    pub summed: Sender<Result<Vec<f32>>>,
    /// Whether somebody waits for a sum.
    pub awaited: Arc<AtomicBool>,
}

/// A process among all that were started together.
pub struct Place {
    pub rank: usize,
    pub size: usize,
    /// Of the machine.
    pub host: String,
}

impl Messenger {
    /// Joins the other processes, tells the place among them, and answers calls until nobody can make one.
    pub fn run(self, joined: &Sender<Result<Place>>) {
        // It ends MPI when it is dropped, after the communicators.
        let mpi = match Mpi::init_thread(ThreadLevel::Funneled) {
            Ok(mpi) => mpi,
            Err(e) => return drop(joined.send(Err(e))),
        };
        let small = mpi.world();
        // Sums have messages of their own: ranks begin them before or after the same gathering.
        let large = match small.duplicate() {
            Ok(large) => large,
            Err(e) => return drop(joined.send(Err(e))),
        };
        let host = small.processor_name().unwrap_or_default();
        let place = Place { rank: small.rank() as usize, size: small.size() as usize, host };
        let _ = joined.send(Ok(place));
        self.answer_all(&small, &large);
    }

    fn answer_all(&self, small: &Communicator, large: &Communicator) {
        let mut sums = VecDeque::new();
        while let Ok(call) = self.calls.recv() {
            self.answer(call, small, &mut sums);
            while let Some(own) = sums.pop_front() {
                let sum = self.sum(own, small, large, &mut sums);
                let _ = self.summed.send(sum);
            }
        }
    }

    /// Answers one call; sums are left for later.
    fn answer(&self, call: Call, small: &Communicator, sums: &mut VecDeque<Vec<f32>>) {
        match call {
            Call::Gather(own) => {
                let mut all = vec![0; own.len() * small.size() as usize];
                let gathered = small.allgather(&own, &mut all).map(|()| all);
                let _ = self.gathered.send(gathered);
            }
            Call::Sum(own) => sums.push_back(own),
            Call::Abort(code) => small.abort(code.into()),
        }
    }

    /// Each rank adds up one block of the values: MPI's own sums have no order.
    fn sum(
        &self,
        mut own: Vec<f32>,
        small: &Communicator,
        large: &Communicator,
        sums: &mut VecDeque<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let (values, size) = (own.len(), large.size() as usize);
        own.resize(values.next_multiple_of(size), 0.0);
        let mut parts = vec![0f32; own.len()];
        scope(|s| self.meanwhile(large.ialltoall(s, &own, &mut parts)?, small, sums))?;
        let (sum, others) = parts.split_at_mut(own.len() / size);
        for other in others.chunks_exact(sum.len()) {
            sum.iter_mut().zip(other).for_each(|(s, o)| *s += o);
        }
        scope(|s| self.meanwhile(large.iallgather(s, sum, &mut own)?, small, sums))?;
        own.truncate(values);
        Ok(own)
    }

    /// Answers calls until a request is done.
    fn meanwhile(
        &self,
        mut request: Request,
        small: &Communicator,
        sums: &mut VecDeque<Vec<f32>>,
    ) -> Result<()> {
        while request.test()?.is_none() {
            let call = match self.awaited.load(Ordering::Relaxed) {
                true => self.calls.try_recv().ok(),
                false => self.calls.recv_timeout(PAUSE).ok(),
            };
            if let Some(call) = call {
                self.answer(call, small, sums);
            }
        }
        Ok(())
    }
}
