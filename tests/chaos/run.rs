//! One run from its first broker to its verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Runtime;

use super::arrivals::{Arrivals, Results, committed};
use super::conclude::conclude;
use super::configuration::{configuration, files};
use super::faults::{end, look, perform};
use super::feed::feed;
use super::hosts::Host;
use super::plan::{Course, HOSTS, Plan, Size};
use super::redis::Pair;
use super::support::child::{own_dir, run_dir, target_dir};
use super::support::cluster::Cluster;
use super::support::proxy::Proxy;
use super::support::servers::{PgBouncer, PoolMode, Postgres};
use super::world::{
    GROUP, KEYS, PARTITIONS, Parts, RESULTS, RESULTS_PARTITIONS, SOURCE, STOPPED, WINDOW_RECORDS, World,
};

/// How often hosts and commits are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Sessions that the pooler keeps with PostgreSQL.
const POOLED: u32 = 8;

/// Every proposed row is noted, also where the upsert keeps one row for each key.
const TABLES: &str = "
CREATE TABLE latest(k text PRIMARY KEY, p int, n bigint, host text, nonce bigint, epoch bigint, written_at bigint);
CREATE TABLE audit(id bigserial, p int, n bigint, host text, nonce bigint, epoch bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit(p, n, host, nonce, epoch) VALUES (NEW.p, NEW.n, NEW.host, NEW.nonce, NEW.epoch);
  RETURN NEW;
END $$;
CREATE TRIGGER note BEFORE INSERT ON latest FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE latest OWNER TO tidegate;
ALTER TABLE audit OWNER TO tidegate";

/// Runs once.
///
/// # Errors
/// What went wrong, with everything that helps to find out why.
pub fn run(seed: u64, size: &Size) -> Result<String, String> {
    let mut random = Rng::with_seed(seed);
    let plan = Plan::draw(size.steps, &mut random);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = build(size, &runtime);
    world.note(format!("seed {seed}: {} records, {} steps", size.records, size.steps));
    let verdict = world.part("the run", || drive(&world, &plan, &random.fork()));
    match (verdict, world.failure()) {
        (Some(verdict), None) => {
            let _ = fs::remove_dir_all(&world.dir);
            Ok(format!("chaos, seed {seed}: {verdict}"))
        }
        (_, failure) => Err(failed(seed, &world, &failure.unwrap_or_default())),
    }
}

pub fn build(size: &Size, runtime: &Runtime) -> World {
    const { assert!(WINDOW_RECORDS < KEYS, "no key twice in one call") };
    let dir = own_dir(&run_dir(), "chaos");
    let (cluster, postgres) = std::thread::scope(|scope| {
        let postgres = scope.spawn(Postgres::start);
        (Cluster::start(), postgres.join().unwrap())
    });
    let database = postgres.database("chaos");
    postgres.psql(&database, TABLES);
    // Transactions of all hosts share its few sessions.
    let pooler = PgBouncer::start(&postgres, PoolMode::Transaction, POOLED, "");
    let proxy = Proxy::before(pooler.port());
    let redis = Pair::start();
    runtime.block_on(async {
        cluster.create_topic(SOURCE, i32::try_from(PARTITIONS).unwrap()).await;
        cluster.create_topic(RESULTS, RESULTS_PARTITIONS).await;
    });
    let dsn = format!("postgresql://tidegate:secret@127.0.0.1:{}/{database}?sslmode=disable", proxy.port());
    let configuration = configuration(&cluster.bootstrap(), &dsn, &redis.url(), size.course);
    let hosts: Vec<Host> = (0..HOSTS).map(|index| Host::new(index, &dir, configuration.clone())).collect();
    hosts[0].check();
    let files = files(&hosts, size.course);
    let reader = || -> BaseConsumer {
        cluster.client().set("group.id", GROUP).set("enable.auto.commit", "false").create().unwrap()
    };
    let results = Results::new(reader(), RESULTS, RESULTS_PARTITIONS, KEYS);
    let arrivals = Arrivals::new(files, results, PARTITIONS);
    let onlooker = reader();
    World::new(Parts {
        size: size.clone(),
        dir,
        cluster,
        postgres,
        pooler,
        redis,
        database,
        proxy,
        hosts,
        arrivals,
        onlooker,
        started: Instant::now(),
    })
}

/// Feeds, joins, breaks, settles and judges.
fn drive(world: &World, plan: &Plan, random: &Rng) -> Result<String, String> {
    let ends = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| world.part("the feed", || feed(world, random.clone())));
        scope.spawn(|| world.part("the watch", || watch(world)));
        for (index, join) in plan.joins.iter().enumerate() {
            scope.spawn(move || {
                world.part("a host's start", || {
                    world.sleep(*join)?;
                    let life = world.hosts[index].lock().unwrap().start();
                    world.note(format!("{life} starts"));
                    Ok(())
                })
            });
        }
        let done = world.part("the plan", || {
            follow(world, plan)?;
            let ends = feeding.join().unwrap().ok_or(STOPPED)?;
            world.note("all is written");
            settle(world, &ends)?;
            Ok(ends)
        });
        // The watch ends, and hosts may.
        world.end();
        done.ok_or_else(|| STOPPED.to_owned())
    })?;
    for host in &world.hosts {
        let mut host = host.lock().unwrap();
        if host.is_running() {
            end(world, &mut host)?;
        }
    }
    world.note("all hosts have ended");
    let faults: usize = plan.steps.iter().map(|step| step.faults.len()).sum();
    let steps = world.begun.load(Ordering::Relaxed).min(plan.steps.len());
    conclude(world, &ends, &format!("{steps} of {} steps ({faults} faults in all)", plan.steps.len()))
}

/// Follows the plan, one step after the other, while records flow.
fn follow(world: &World, plan: &Plan) -> Result<(), String> {
    for (number, step) in plan.steps.iter().enumerate() {
        // Half of what belongs to the steps before has to be on its way, and everybody to have joined before the first.
        let wanted = world.share(number as f64 + 0.5);
        let in_time = world.wait(world.size.faults_until, || {
            world.written.load(Ordering::Relaxed) >= wanted && (number > 0 || everybody_serves(world))
        })?;
        if !in_time || world.started.elapsed() > world.size.faults_until {
            world.note(format!("time is up after {number} of {} steps", plan.steps.len()));
            break;
        }
        world.begun.store(number + 1, Ordering::Relaxed);
        let done = std::thread::scope(|scope| {
            let faults = step.faults.iter().map(|fault| {
                let name = fault.to_string();
                scope.spawn(move || world.part(&name, || perform(world, *fault)))
            });
            let faults: Vec<_> = faults.collect();
            faults.into_iter().map(|fault| fault.join().unwrap()).collect::<Option<Vec<()>>>()
        });
        done.ok_or(STOPPED)?;
        world.sleep(step.pause)?;
    }
    world.begun.store(world.size.steps + 1, Ordering::Relaxed);
    world.note("no more faults");
    Ok(())
}

pub fn everybody_serves(world: &World) -> bool {
    world.hosts.iter().all(|host| !host.lock().unwrap().told(": assigned partition=").is_empty())
}

/// Looks at hosts that nobody is busy with, and at what is committed.
///
/// # Errors
/// When a host has ended by itself, or the brokers do not answer.
pub fn watch(world: &World) -> Result<(), String> {
    while !world.is_over() {
        for host in &world.hosts {
            if let Ok(mut host) = host.try_lock() {
                look(world, &mut host)?;
            }
        }
        let committed = committed(&world.onlooker, SOURCE, PARTITIONS)?;
        world.committed.store(committed.iter().map(|&offset| u64::from(offset)).sum(), Ordering::Relaxed);
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until everything is committed.
///
/// # Errors
/// When it is not in time, or has not arrived.
pub fn settle(world: &World, ends: &[u32]) -> Result<(), String> {
    let all: u64 = ends.iter().map(|&end| u64::from(end)).sum();
    if !world.wait(world.size.all_until, || world.committed.load(Ordering::Relaxed) >= all)? {
        let committed = world.committed.load(Ordering::Relaxed);
        let tails: Vec<String> = world.hosts.iter().map(|host| host.lock().unwrap().tail()).collect();
        let limit = world.size.all_until;
        return Err(format!("{committed} of {all} records are committed in {limit:?}\n{}", tails.join("\n")));
    }
    let committed = world.check()?;
    world.note("all is committed, and has arrived");
    if committed != ends { Err(format!("committed {committed:?}, written {ends:?}")) } else { Ok(()) }
}

/// What is told of a failed run, whose files are kept.
pub fn failed(seed: u64, world: &World, failure: &str) -> String {
    for host in &world.hosts {
        host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).kill();
    }
    for (name, log) in world.cluster.logs() {
        let _ = fs::write(world.dir.join(name), log);
    }
    let _ = fs::write(world.dir.join("journal.txt"), format!("{}\n{failure}\n", world.journal()));
    let kept = keep(&world.dir, seed).unwrap_or_else(|_| world.dir.clone());
    let again = match (world.size.course, world.size.live) {
        (Course::Steady, _) => "make soak, with the same variables".to_owned(),
        (Course::Faults, live) => {
            let records = if live { format!("TIDEGATE_CHAOS_RECORDS={} ", world.size.records) } else { String::new() };
            format!("{records}TIDEGATE_CHAOS_SEED={seed} cargo test --test chaos -- --nocapture s1_nothing")
        }
    };
    format!(
        "seed {seed}: {failure}\n\nwhat was done, by seconds:\n{}\n\nlogs and files: {}\n\
         again: {again}\n\
         (the same faults at the same steps; what the machine does meanwhile differs from run to run)",
        world.journal(),
        kept.display(),
    )
}

fn keep(dir: &Path, seed: u64) -> std::io::Result<PathBuf> {
    let place = target_dir().join("chaos");
    fs::create_dir_all(&place)?;
    let kept = place.join(format!("seed-{seed}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&kept);
    fs::rename(dir, &kept)?;
    Ok(kept)
}
