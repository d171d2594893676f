"""Stands in for kafka-python's module that starts brokers, which its source archive lacks.

Its fixtures import two names. `ExternalService` is a broker that already runs: there is nothing to start or to stop.
`SpawnedService` would start one, and says that it cannot.
"""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def close(self):
        pass

    def start(self):
        pass

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    def __init__(self, *_arguments, **_keywords):
        raise RuntimeError("only a broker that already runs: set KAFKA_URI")
