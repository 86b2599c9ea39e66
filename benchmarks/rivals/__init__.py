"""The throughput benchmark: stem-trio beside other task queues, on one server.

Part of it runs in the harness (`contenders`, `venvs`, `server`, `worker`, `phases`, `rounds`, `report`), part in the
environment of a contender (`apps`, `drive`, `mark`, `settings`, `produce`, `floor`), where nothing but the standard
library and the contender itself is installed.
"""
