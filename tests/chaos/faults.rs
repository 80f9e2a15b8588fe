//! Makes the plan's faults happen.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::hosts::Host;
use super::plan::{Fault, Kind};
use super::support::proxy::Cut;
use super::world::{RESULTS, SOURCE, World};

/// How long a host may take to end in order; far more than its own limits add up to.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// The code of a start that reached a sink or the brokers not.
const UNREACHED: i32 = 3;
/// What the shell tells of a process that was ended by SIGTERM, before it could say what it does about it.
const TERMINATED: i32 = 128 + 15;
/// How soon that is.
const UNPREPARED: Duration = Duration::from_secs(1);

/// One fault from its beginning to its end, with the check that it is there for.
///
/// # Errors
/// What should not have happened.
pub fn perform(world: &World, fault: Fault) -> Result<(), String> {
    world.sleep(fault.after)?;
    world.note(fault.to_string());
    match fault.kind {
        Kind::HostKill => on_host(world, fault, |host| {
            host.kill();
            Ok(())
        }),
        Kind::HostTerm | Kind::HostLeave => on_host(world, fault, |host| end(world, host)),
        Kind::HostStop => stop(world, fault),
        Kind::BrokerKill => world.trouble(|| {
            let _turn = world.brokers_turn.lock().unwrap();
            world.cluster.kill(fault.target);
            world.sleep(fault.lasts)?;
            world.cluster.restart(fault.target);
            world.cluster.is_in_sync(&[SOURCE, RESULTS])?;
            world.note(format!("b{} is back", fault.target));
            Ok(())
        }),
        Kind::PoolerKill => world.trouble(|| {
            let mut pooler = world.pooler.lock().unwrap();
            pooler.kill();
            let slept = world.sleep(fault.lasts);
            pooler.restart();
            world.note("the pooler is back");
            slept
        }),
        Kind::RedisFailover => world.trouble(|| {
            world.redis.lock().unwrap().fail_over();
            Ok(())
        }),
        _ => world.trouble(|| on_database(world, fault)),
    }
}

/// Ends a life, checks, and begins the next one after a while.
fn on_host(world: &World, fault: Fault, end: impl FnOnce(&mut Host) -> Result<(), String>) -> Result<(), String> {
    let mut host = world.hosts[fault.target].lock().unwrap();
    if host.is_running() {
        end(&mut host)?;
    }
    world.check()?;
    world.sleep(fault.lasts)?;
    let life = host.start();
    world.note(format!("{life} starts"));
    Ok(())
}

/// Stops a host past its session timeout. It does not know, and the group goes on without it.
fn stop(world: &World, fault: Fault) -> Result<(), String> {
    let mut host = world.hosts[fault.target].lock().unwrap();
    if !host.is_running() {
        return Ok(());
    }
    world.stopped.lock().unwrap().insert(host.life());
    host.signal(Signal::STOP);
    let slept = world.sleep(fault.lasts);
    host.signal(Signal::CONT);
    slept?;
    world.note(format!("{} goes on", host.life()));
    world.check()?;
    look(world, &mut host)
}

/// Ends a host in order (S54, S58).
///
/// # Errors
/// When it ends with another code than 0, or not at all.
pub fn end(world: &World, host: &mut Host) -> Result<(), String> {
    let asked = Instant::now();
    host.signal(Signal::TERM);
    match host.wait(END_PATIENCE) {
        Some((0, _)) => Ok(()),
        Some((TERMINATED, since)) if asked.duration_since(since) < UNPREPARED => Ok(()),
        Some((UNREACHED, since)) if world.was_trouble_since(since) => Ok(()),
        Some((code, _)) => Err(format!("S58: code {code} after SIGTERM; {}", host.tail())),
        None => Err(format!("S55: no end {END_PATIENCE:?} after SIGTERM; {}", host.tail())),
    }
}

/// A host ends by itself only when it could not start because of a fault; whoever runs it starts it again.
///
/// # Errors
/// When it has ended otherwise.
pub fn look(world: &World, host: &mut Host) -> Result<(), String> {
    match host.ended() {
        None => Ok(()),
        Some((UNREACHED, since)) if world.was_trouble_since(since) => {
            world.note(format!("{} could not start", host.life()));
            host.start();
            Ok(())
        }
        Some((code, _)) => Err(format!("{} ended by itself with code {code}; {}", host.life(), host.tail())),
    }
}

fn on_database(world: &World, fault: Fault) -> Result<(), String> {
    match fault.kind {
        Kind::PostgresKill => {
            let mut postgres = world.postgres.write().unwrap();
            postgres.kill();
            world.sleep(fault.lasts)?;
            postgres.restart();
            world.note("PostgreSQL is back");
        }
        Kind::PostgresLock => {
            let seconds = fault.lasts.as_secs_f64();
            let sql = format!("BEGIN; LOCK TABLE latest; SELECT pg_sleep({seconds}); COMMIT");
            world.postgres.read().unwrap().psql(&world.database, &sql);
        }
        Kind::PostgresReadOnly => {
            // Sessions that are there already keep what they were told at their start.
            let leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidegate'";
            let postgres = world.postgres.read().unwrap();
            postgres.psql("postgres", "ALTER ROLE tidegate SET default_transaction_read_only = on");
            postgres.psql("postgres", leave);
            let slept = world.sleep(fault.lasts);
            postgres.psql("postgres", "ALTER ROLE tidegate RESET default_transaction_read_only");
            postgres.psql("postgres", leave);
            slept?;
        }
        Kind::ProxyStall => {
            world.proxy.stall();
            let slept = world.sleep(fault.lasts);
            world.proxy.forward();
            slept?;
        }
        _ => world.proxy.cut(Cut::Reset),
    }
    Ok(())
}
