//! The servers themselves: each answers, is killed, comes back, and is gone with its owner.

use mongodb::bson::{Document, doc};
use sqlx::Connection as _;

use super::help;
use crate::support::child::listens;
use crate::support::servers::{Http, Mongo, Postgres, Redis, crypto};

#[tokio::test]
async fn postgres_answers_survives_a_kill_and_goes_with_its_owner() {
    let mut postgres = Postgres::start();
    let (one, other) = (postgres.database("answers"), postgres.database("answers"));
    assert_ne!(one, other);
    let secure = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.dsn(&one), postgres.ca_file().display());
    let mut client = sqlx::PgConnection::connect(&secure).await.unwrap();
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut client).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (7), (8)").execute(&mut client).await.unwrap();
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(tls).fetch_one(&mut client).await.unwrap());
    let mut plain = sqlx::PgConnection::connect(&format!("{}?sslmode=disable", postgres.dsn(&one))).await.unwrap();
    assert!(!sqlx::query_scalar::<_, bool>(tls).fetch_one(&mut plain).await.unwrap());
    let wrong = postgres.dsn(&one).replace("secret", "guess");
    sqlx::PgConnection::connect(&wrong).await.unwrap_err();

    // A process that works does not notice by itself that its postmaster is gone.
    let busy = tokio::spawn(async move { sqlx::query("SELECT pg_sleep(600)").execute(&mut plain).await.map(drop) });
    while postgres.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6%'") != "2" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    postgres.kill();
    busy.await.unwrap().unwrap_err();
    assert!(!listens(postgres.port()));
    sqlx::query("SELECT 1").execute(&mut client).await.unwrap_err();
    postgres.restart();
    assert_eq!(postgres.psql(&one, "SELECT n, n + 1 FROM kept ORDER BY n"), "7|8\n8|9");
    postgres.stop();
    postgres.restart();
    let mut admin = sqlx::PgConnection::connect(&postgres.admin_dsn(&one)).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("SELECT sum(n) FROM kept").fetch_one(&mut admin).await.unwrap(), 15);

    let port = postgres.port();
    drop(postgres);
    assert!(!listens(port));
}

#[test]
fn redis_answers_comes_back_after_a_kill_and_goes_with_its_owner() {
    let mut redis = Redis::start();
    let (one, other) = (redis.database().to_string(), redis.database().to_string());
    assert_eq!(redis.cli(&["-n", &one, "SET", "key", "value"]), "OK");
    assert_eq!(redis.cli(&["-n", &one, "GET", "key"]), "value");
    assert_eq!(redis.cli(&["-n", &other, "EXISTS", "key"]), "0");
    let authority = redis.ca_file();
    let tls_port = redis.tls_port().to_string();
    assert_eq!(redis.cli(&["-p", &tls_port, "--tls", "--cacert", authority.to_str().unwrap(), "PING"]), "PONG");

    redis.kill();
    assert!(!listens(redis.port()));
    redis.restart();
    assert_eq!(redis.cli(&["-n", &one, "EXISTS", "key"]), "0", "nothing is kept");
    redis.stop();
    redis.restart();
    let port = redis.port();
    drop(redis);
    assert!(!listens(port));
}

#[tokio::test]
async fn mongo_answers_survives_a_kill_and_goes_with_its_owner() {
    let mut mongo = Mongo::start();
    let name = mongo.database("answers");
    let mut client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
    for round in 1..=3_u64 {
        let kept = client.database(&name).collection::<Document>("kept");
        kept.insert_many((0..100).map(|number| doc! { "round": i64::try_from(round).unwrap(), "number": number }))
            .await
            .unwrap();
        // At once: what was acknowledged must be there.
        if round < 3 {
            mongo.kill()
        } else {
            mongo.stop()
        }
        assert!(!listens(mongo.port()));
        mongo.restart();
        client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
        let found = client.database(&name).collection::<Document>("kept").count_documents(doc! {}).await.unwrap();
        assert_eq!(found, round * 100);
    }
    let port = mongo.port();
    drop(mongo);
    assert!(!listens(port));
}

#[tokio::test]
async fn http_behaves_as_asked_records_and_goes_with_its_owner() {
    let mut http = Http::start();
    crypto();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(http.ca_file()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let post = async |url: String, body: &'static str| {
        let answer = client.post(url).body(body).send().await?;
        let (status, wait) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
        answer.bytes().await?;
        Ok::<_, reqwest::Error>((status, wait.map(|wait| wait.to_str().unwrap().to_owned())))
    };
    assert_eq!(post(http.url("retried", "retry-after/429/2/7"), "a").await.unwrap(), (429, Some("7".into())));
    assert_eq!(post(http.url("retried", "fail/503/2"), "b").await.unwrap(), (503, None));
    assert_eq!(post(http.https_url("retried", "retry-after/429/2/7"), "c").await.unwrap(), (200, None));
    let requests = http.requests("retried").await;
    let bodies: Vec<String> = requests.iter().map(|request| request.text()).collect();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert_eq!(requests[0].client_port, requests[1].client_port, "the connection is kept");
    assert_eq!([requests[1].tls, requests[2].tls], [false, true]);
    assert_eq!((requests[2].order, requests[2].method.as_str()), (2, "POST"));
    assert_eq!(requests[2].path, "/t/retried/retry-after/429/2/7");
    assert_eq!(requests[0].header("content-length"), Some("1"));
    assert!(requests.iter().all(|request| request.answered.unwrap() > request.arrived));

    assert_eq!(post(http.url("moved", "redirect"), "").await.unwrap().0, 200);
    assert_eq!(http.requests("moved").await.last().unwrap().path, "/t/moved/landed");
    assert_eq!(post(http.url("poison", "poison/bad"), "so bad!").await.unwrap().0, 400);
    assert_eq!(post(http.url("poison", "poison/bad"), "good").await.unwrap().0, 200);
    post(http.url("reset", "reset"), "").await.unwrap_err();
    assert_eq!(http.requests("reset").await[0].answered, None);
    for stuck in ["hang", "drip"] {
        let patience = std::time::Duration::from_millis(500);
        tokio::time::timeout(patience, post(http.url("stuck", stuck), "")).await.unwrap_err();
    }

    http.kill();
    post(http.url("retried", "ok"), "").await.unwrap_err();
    http.restart();
    assert_eq!(post(http.url("retried", "ok"), "").await.unwrap(), (200, None));
    assert_eq!(http.requests("retried").await.len(), 1, "the record ends with the server");
    http.stop();
    http.restart();
    let port = http.port();
    drop(http);
    assert!(!listens(port));
}

#[test]
fn each_test_shares_the_servers_and_has_its_own_place() {
    assert!(std::ptr::eq(help::postgres(), help::postgres()));
    assert_ne!(help::postgres().database("mine"), help::postgres().database("mine"));
    assert_ne!(help::redis().database(), help::redis().database());
    assert_ne!(help::mongo().database("mine"), help::mongo().database("mine"));
    assert!(listens(help::http().port()));
}
