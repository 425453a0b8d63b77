"""What the tests do at RabbitMQ, with the libraries that producers use: pika, and Celery.

    python centre.py URL setup [QUEUE]                  a queue that differs from what Tidings would declare, and a graveyard
    python centre.py URL produce FIRST COUNT USERS [MORE]  numbered messages, in transactions, through crashes of the broker;
                                                        MORE is JSON, further fields of each
    python centre.py URL publish QUEUE                  messages from standard input, one a line, as JSON
    python centre.py URL celery QUEUE COUNT             tasks as an application sends them
    python centre.py URL tasks QUEUE                    the same, of keywords from standard input, one a line, as JSON
    python centre.py URL bury QUEUE                     empties a queue, prints one line of JSON for each message
    python centre.py URL depth QUEUE                    how many messages are in it
    python centre.py URL delete QUEUE
    python centre.py URL unbind | bind                  the graveyard's queue from and to its exchange
"""

import json
import sys
import time

import pika
import pika.exceptions

QUEUE = "centre"
EXCHANGE = "dead"
GRAVEYARD = "graveyard"
# Of messages that become durable together.
BATCH = 100
# How long a broker that was killed may take to come back.
PATIENCE_S = 180


def open_channel(url):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    return connection, connection.channel()


def setup(url, queue=QUEUE):
    connection, channel = open_channel(url)
    channel.exchange_declare(EXCHANGE, "fanout", durable=True)
    channel.queue_declare(GRAVEYARD, durable=True)
    channel.queue_bind(GRAVEYARD, EXCHANGE)
    arguments = {"x-max-priority": 5}
    if queue != QUEUE:
        arguments["x-dead-letter-exchange"] = EXCHANGE
    channel.queue_declare(queue, durable=True, arguments=arguments)
    connection.close()


def persistent(**more):
    return pika.BasicProperties(delivery_mode=2, content_type="application/json", **more)


def produce(url, first, count, users, more="{}"):
    """A batch that may have been lost is sent again, with the same ids."""
    until = time.monotonic() + PATIENCE_S
    at, end = int(first), int(first) + int(count)
    connection = None
    while at < end:
        try:
            if connection is None:
                connection, channel = open_channel(url)
                channel.tx_select()
            upto = min(at + BATCH, end)
            for n in range(at, upto):
                body = {"to": {"user": f"u{n % int(users)}"}, "title": str(n), **json.loads(more)}
                channel.basic_publish("", QUEUE, json.dumps(body).encode(), persistent(message_id=f"m-{n}"))
            channel.tx_commit()
            at, until = upto, time.monotonic() + PATIENCE_S
        except (pika.exceptions.AMQPError, OSError):
            connection = None
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    connection.close()


def publish(url, queue):
    """A line: {"body", "times", "message_id", "headers", "user_id", "expiration"}; the body stands so many times."""
    connection, channel = open_channel(url)
    channel.confirm_delivery()
    for line in sys.stdin:
        said = json.loads(line)
        body = said.pop("body").encode() * said.pop("times", 1)
        channel.basic_publish("", queue, body, persistent(**said), mandatory=True)
    connection.close()


def application(url, queue):
    import celery as library
    from kombu import Exchange, Queue

    app = library.Celery("shop", broker=url)
    # The queue is the other side's: it is named, and not declared.
    app.conf.task_queues = [Queue(queue, Exchange(""), routing_key=queue, no_declare=True)]
    return app


def celery(url, queue, count):
    app = application(url, queue)
    for n in range(int(count)):
        said = {"to": {"user": "celia"}, "title": f"task {n}"}
        arguments = {"kwargs": said} if n % 2 else {"args": [said]}
        app.send_task("centre.notify", queue=queue, **arguments)


def tasks(url, queue):
    app = application(url, queue)
    for line in sys.stdin:
        app.send_task("centre.notify", kwargs=json.loads(line), queue=queue)


def bury(url, queue):
    connection, channel = open_channel(url)
    while True:
        frame, properties, body = channel.basic_get(queue, auto_ack=True)
        if frame is None:
            break
        text = body.decode(errors="replace")[:200]
        headers = {name: str(value) for name, value in (properties.headers or {}).items()}
        letter = {"headers": headers, "bytes": len(body), "text": text, "message_id": properties.message_id}
        letter.update(expiration=properties.expiration, delivery_mode=properties.delivery_mode)
        print(json.dumps(letter))
    connection.close()


def depth(url, queue):
    connection, channel = open_channel(url)
    print(channel.queue_declare(queue, passive=True).method.message_count)
    connection.close()


def delete(url, queue):
    connection, channel = open_channel(url)
    channel.queue_delete(queue)
    connection.close()


def unbind(url):
    connection, channel = open_channel(url)
    channel.queue_unbind(GRAVEYARD, EXCHANGE)
    connection.close()


def bind(url):
    connection, channel = open_channel(url)
    channel.queue_bind(GRAVEYARD, EXCHANGE)
    connection.close()


if __name__ == "__main__":
    url, command, *rest = sys.argv[1:]
    commands = [setup, produce, publish, celery, tasks, bury, depth, delete, unbind, bind]
    {known.__name__: known for known in commands}[command](url, *rest)
