"""Who is held on a Describe, and until when."""

from __future__ import annotations

import threading
import time

import pytest

from byoa.local.api.hold import Hold, waits

PLAIN = ("Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.11.7"
         " md/pyimpl#CPython m/b,Z,D cfg/retry-mode#legacy Botocore/1.44.5")
WAITER = PLAIN.replace("m/b,Z,D", "m/Z,B,b,D")
SDK = PLAIN + " AWS-SageMaker-Python-SDK/2.257.7 Python/3.11.7"


class Job:
    """A job whose end is announced."""

    def __init__(self, status="InProgress"):
        self.status = status
        self.looks = 0
        self.changed = threading.Condition()

    def look(self):
        self.looks += 1
        return {"TrainingJobStatus": self.status}

    def end(self):
        with self.changed:
            self.status = "Completed"
            self.changed.notify_all()

    def wait_for_change(self, timeout):
        with self.changed:
            return self.changed.wait(timeout)


def _describe(hold, job, user_agent, **more):
    return hold.describe("DescribeTrainingJob", job.look, user_agent=user_agent, **more)


@pytest.mark.parametrize(("user_agent", "held"), [
    (PLAIN, False), (WAITER, True), (SDK, True), ("AWS-SageMakerCore/1.0", True),
    ("aws-cli/2 m/BA,C", False), ("curl/8", False), ("", False)])
def test_waiters_and_the_sagemaker_sdk_are_known_by_their_user_agent(user_agent, held):
    assert waits(user_agent) is held


def test_a_waiter_is_answered_when_the_job_ends():
    job = Job()
    hold = Hold(30.0, job.wait_for_change)
    timer = threading.Timer(0.2, job.end)
    timer.start()
    assert _describe(hold, job, WAITER) == {"TrainingJobStatus": "Completed"}
    timer.join()


def test_a_change_whose_notification_is_missed_still_ends_the_hold():
    job = Job()

    def wait(timeout):
        job.status = "Completed"  # nobody notifies
        time.sleep(timeout)
        return False

    assert _describe(Hold(30.0, wait), job, WAITER) == {"TrainingJobStatus": "Completed"}


@pytest.mark.parametrize("user_agent", [PLAIN, "curl/8"])
def test_a_plain_client_is_never_held_however_often_it_looks(user_agent):
    """A loop that shows progress, or reads with a short timeout, gets each answer at once."""
    job = Job()
    hold = Hold(30.0, job.wait_for_change)
    for look in range(1, 6):
        assert _describe(hold, job, user_agent)["TrainingJobStatus"] == "InProgress"
        assert job.looks == look


def test_nobody_is_held_on_a_finished_job():
    job = Job("Completed")
    _describe(Hold(30.0, job.wait_for_change), job, WAITER)
    assert job.looks == 1


def test_the_hold_ends_with_its_seconds():
    job = Job()
    answer = _describe(Hold(0.3, job.wait_for_change), job, WAITER)
    assert answer["TrainingJobStatus"] == "InProgress"
    assert job.looks > 1


@pytest.mark.parametrize(("seconds", "immediate"), [(0.0, False), (30.0, True)])
def test_the_hold_can_be_switched_off(seconds, immediate):
    job = Job()
    _describe(Hold(seconds, job.wait_for_change), job, WAITER, immediate=immediate)
    assert job.looks == 1


def test_closing_lets_everybody_go():
    job = Job()
    hold = Hold(30.0, job.wait_for_change)
    timer = threading.Timer(0.2, hold.close)
    timer.start()
    assert _describe(hold, job, WAITER)["TrainingJobStatus"] == "InProgress"
    timer.join()


def test_an_error_that_comes_up_while_holding_reaches_the_caller():
    """WIRE-20: endpoint_deleted succeeds on the ValidationException."""
    answers = iter([{"EndpointStatus": "Deleting"}])

    def look():
        for answer in answers:
            return answer
        raise LookupError("gone")

    hold = Hold(30.0, lambda timeout: False)
    with pytest.raises(LookupError):
        hold.describe("DescribeEndpoint", look, user_agent=WAITER)
