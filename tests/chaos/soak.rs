//! The soak: a steady rate through a collector, three native sinks and a buffering plugin sink on default limits. One host
//! lives from the beginning to the end and is watched; the other two are killed and leave in turn, so that its partitions
//! are taken and given back all the time.
//!
//! `make soak` runs it. `TIDEGATE_SOAK_MINUTES` is how long, `TIDEGATE_SOAK_RATE` how many records a second.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::conclude::conclude;
use super::faults::{end, perform};
use super::feed::feed_steadily;
use super::number;
use super::plan::{Fault, HOSTS, Kind, Size};
use super::run::{build, everybody_serves, failed, settle, watch};
use super::samples::{Sample, TENTHS, Tenth, judge};
use super::world::{STOPPED, World};

/// Records a second.
const RATE: u64 = 2_000;
/// The host that lives to the end.
const RESIDENT: usize = 0;
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long all hosts may take to get their partitions.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Milliseconds between two faults, and how long a host stays out of the group: longer than its session.
const CALM: std::ops::Range<u64> = 8_000..20_000;
const ABSENCE: std::ops::Range<u64> = 2_000..9_000;

/// S1, S15, S45–S47: at a steady rate the memory, threads and open files of a host that lives on are flat, and nothing is lost
/// and no order broken, whatever happens to the others.
#[test]
fn s15_memory_stays_flat_at_a_steady_rate() {
    let Some(minutes) = number("TIDEGATE_SOAK_MINUTES") else {
        println!("`make soak` runs this");
        return;
    };
    let rate = number("TIDEGATE_SOAK_RATE").unwrap_or(RATE);
    let seed = number("TIDEGATE_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let size = Size::steady(Duration::from_secs(minutes * 60), rate);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = build(&size, &runtime);
    world.note(format!("seed {seed}: {minutes} minutes of {rate} records a second"));
    let verdict = world.part("the soak", || drive(&world, &mut Rng::with_seed(seed)));
    match (verdict, world.failure()) {
        (Some(verdict), None) => {
            let _ = std::fs::remove_dir_all(&world.dir);
            println!("soak, seed {seed}: {verdict}");
        }
        (_, failure) => panic!("{}", failed(seed, &world, &failure.unwrap_or_default())),
    }
}

/// Starts the hosts, feeds and disturbs them, settles and judges.
fn drive(world: &World, random: &mut Rng) -> Result<String, String> {
    let (ends, tenths, faults) = std::thread::scope(|scope| {
        scope.spawn(|| world.part("the watch", || watch(world)));
        let done = world.part("the faults", || {
            for host in &world.hosts {
                host.lock().unwrap().start();
            }
            if !world.wait(world.started.elapsed() + START_PATIENCE, || everybody_serves(world))? {
                return Err(format!("not every host has partitions after {START_PATIENCE:?}"));
            }
            world.note("all hosts serve");
            let (begun, feeds) = (Instant::now(), random.fork());
            let feeding = scope.spawn(|| world.part("the feed", || feed_steadily(world, feeds)));
            let sampling = scope.spawn(move || world.part("the samples", || sample(world, begun)));
            let faults = disturb(world, begun, random)?;
            let tenths = sampling.join().unwrap().ok_or(STOPPED)?;
            let ends = feeding.join().unwrap().ok_or(STOPPED)?;
            world.note("all is written");
            settle(world, &ends)?;
            Ok((ends, tenths, faults))
        });
        // The watch ends, and hosts may.
        world.end();
        done.ok_or_else(|| STOPPED.to_owned())
    })?;
    for host in &world.hosts {
        end(world, &mut host.lock().unwrap())?;
    }
    world.note("all hosts have ended");
    let table: Vec<String> = tenths.iter().zip(1..).map(|(tenth, number)| format!("{number:>5} {tenth}")).collect();
    let table = format!("{}\n{}\n", Tenth::head(), table.join("\n"));
    let mut text =
        conclude(world, &ends, &format!("{faults} hosts killed or stopped")).map_err(|why| why + "\n" + &table)?;
    text += &table;
    let lives = world.hosts[RESIDENT].lock().unwrap().lives();
    match judge(&tenths) {
        _ if lives != 1 => Err(format!("{text}the host that should have lived on had {lives} lives")),
        Ok(said) => Ok(text + &said),
        Err(why) => Err(text + &why),
    }
}

/// Kills or stops one host after the other but the resident one, until the time is up. Answers how often.
fn disturb(world: &World, begun: Instant, random: &mut Rng) -> Result<usize, String> {
    let mut faults = 0;
    loop {
        let calm = Duration::from_millis(random.u64(CALM));
        let left = world.size.feeding.saturating_sub(begun.elapsed());
        world.sleep(calm.min(left))?;
        if begun.elapsed() >= world.size.feeding {
            return Ok(faults);
        }
        let kind = if faults % 3 == 2 { Kind::HostLeave } else { Kind::HostKill };
        let target = random.usize(RESIDENT + 1..HOSTS);
        let lasts = Duration::from_millis(random.u64(ABSENCE));
        perform(world, Fault { kind, target, after: Duration::ZERO, lasts })?;
        faults += 1;
    }
}

/// Looks at the resident host for as long as records are written, and tells each tenth of the time when it is over.
fn sample(world: &World, begun: Instant) -> Result<Vec<Tenth>, String> {
    use std::sync::atomic::Ordering::Relaxed;
    let pid = world.hosts[RESIDENT].lock().unwrap().pid().ok_or("the host that should live on has ended")?;
    let mut tenths = vec![Tenth::default()];
    loop {
        world.sleep(LOOK)?;
        let share = begun.elapsed().as_secs_f64() / world.size.feeding.as_secs_f64();
        let number = (share * TENTHS as f64) as usize + 1;
        while tenths.len() < number.min(TENTHS + 1) {
            if let Some(tenth) = tenths.last() {
                world.note(format!("tenth {:>2} {tenth}", tenths.len()));
            }
            tenths.push(Tenth::default());
        }
        if number > TENTHS {
            tenths.truncate(TENTHS);
            return Ok(tenths);
        }
        let behind = world.written.load(Relaxed).saturating_sub(world.committed.load(Relaxed));
        let sample = Sample::of(pid, behind).ok_or("the host that should live on has ended")?;
        if let Some(tenth) = tenths.last_mut() {
            tenth.add(sample);
        }
    }
}
