"""A receiver of CloudEvents over HTTP that reads them with the CloudEvents project's own library, in full.

The library knows no batches, which are lists of events: https://github.com/cloudevents/spec, JSON batch format.
"""

import json

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat

from tests.fakes.http import Asked

BATCH = "application/cloudevents-batch+json"


def events(asked: Asked) -> list[BaseCloudEvent]:
    """Of one request."""
    content_type = asked.headers["content-type"].partition(";")[0]
    if content_type != BATCH:
        return [from_http_event(HTTPMessage({"content-type": content_type}, asked.body))]
    return [JSONFormat().read(None, json.dumps(event)) for event in json.loads(asked.body)]


def received(asked: list[Asked]) -> list[int]:
    """Sequence numbers in the order they came."""
    return [int(str(event.get_extension("sequence"))) for each in asked for event in events(each)]
