//! A worker, a change of its servers, and what was on its way when it came.

use std::time::Duration;

use crate::testing::{Scene, run, settle};

#[test]
fn an_idle_worker_acknowledges_every_step() {
    run(async {
        let scene = Scene::new(2, "");
        let agreement = scene.agreement();
        assert_eq!(agreement.members(), 1);
        for step in 1..4 {
            agreement.publish(scene.plain(step, &[0, 1]));
            settle().await;
            assert_eq!(agreement.acknowledged(), step);
        }
    });
}

#[test]
fn a_step_is_acknowledged_when_all_that_was_sent_before_is_answered() {
    run(async {
        let scene = Scene::new(1, "");
        let agreement = scene.agreement();
        let (mut one, mut two) = (scene.client(), scene.client());
        one.send("get a\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f v\r\n").await;
        // This client's session is gone before the answer is there.
        two.send("set b 0 0 1\r\nx\r\n").await;
        server.expect("ms b 1\r\nx\r\n").await;
        drop(two);
        agreement.publish(scene.plain(1, &[0]));
        server.expect("mn\r\n").await;
        settle().await;
        assert_eq!(agreement.acknowledged(), 0);
        server.send("EN\r\n").await;
        one.expect("END\r\n").await;
        // What comes in the new step holds nothing up.
        one.send("get c\r\n").await;
        server.expect("mg c k f v\r\n").await;
        assert_eq!(agreement.acknowledged(), 0);
        server.send("HD\r\nMN\r\n").await;
        settle().await;
        assert_eq!(agreement.acknowledged(), 1);
    });
}

#[test]
fn what_a_server_never_answers_is_over_when_its_time_is() {
    run(async {
        let scene = Scene::new(1, "    timeout: 300ms\n");
        let agreement = scene.agreement();
        let mut client = scene.client();
        client.send("get a\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f v\r\n").await;
        agreement.publish(scene.plain(1, &[0]));
        settle().await;
        assert_eq!(agreement.acknowledged(), 0);
        client.expect("SERVER_ERROR").await;
        settle().await;
        assert_eq!(agreement.acknowledged(), 1);
    });
}

#[test]
fn a_program_holds_its_step_open() {
    run(async {
        let scene = Scene::new(1, "");
        let agreement = scene.agreement();
        let changes = super::Changes::enrol(&agreement, std::rc::Rc::default());
        let running = changes.begin(changes.step());
        agreement.publish(scene.plain(1, &[0]));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((agreement.acknowledged(), changes.step()), (0, 1));
        let later = changes.begin(changes.step());
        drop(running);
        settle().await;
        assert_eq!(agreement.acknowledged(), 1);
        // It leaves with its last operation.
        changes.retire();
        drop(changes);
        settle().await;
        assert_eq!(agreement.members(), 2);
        drop(later);
        settle().await;
        assert_eq!(agreement.members(), 1);
    });
}
