"""A key-value server on asyncio: one task for each client, and each awaits its own command.

python examples/key_value_server.py n1     and n2 and n3, each in a terminal of its own
nc 127.0.0.1 7011                          then: set colour blue, get colour, quit
"""

import argparse
import asyncio
import signal

from pyraft import FSM, NotAppliedError, NotLeaderError, OutcomeUnknownError, Raft

PATIENCE = 5.0  # seconds for one command


class Table(FSM):
    """Keys and values, all of them text.  In order of insertion, so equal histories make equal snapshots."""

    def __init__(self):
        self.values = {}

    def apply(self, log):
        key, value = log.data.decode().split(" ", 1)
        self.values[key] = value

    def snapshot(self):
        return "".join(f"{key} {value}\n" for key, value in self.values.items()).encode()

    def restore(self, source):
        lines = source.read().decode().splitlines()
        self.values = dict(line.split(" ", 1) for line in lines)


async def answer(raft, table, clients, request):
    """What a client is told.  The errors of a command say what a client may do next, so they decide its words."""
    try:
        async with asyncio.timeout(PATIENCE):
            match request.split(maxsplit=2):
                case ["set", key, value]:
                    await raft.apply(f"{key} {value}".encode())
                    return "ok"
                case ["get", key]:
                    await raft.read_index(timeout=PATIENCE)  # on any server: what is read next is not stale
                    return table.values.get(key, "")
                case _:
                    return "what? set KEY VALUE, get KEY or quit"
    except NotLeaderError as error:
        return f"ask {clients[error.leader_id]}" if error.leader_id in clients else "again: nobody leads yet"
    except NotAppliedError as error:
        return f"again: {error}"
    except (OutcomeUnknownError, TimeoutError) as error:
        return f"unknown: {error or f'not done within {PATIENCE:g} s'}"


async def serve(raft, table, clients, host, port):
    """Serve clients until SIGINT or SIGTERM."""

    async def talk(reader, writer):
        try:
            async for line in reader:
                request = line.decode(errors="replace").strip()
                if request == "quit":
                    break
                writer.write(f"{await answer(raft, table, clients, request)}\n".encode())
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client has gone, or sent a line without end; its last command goes on without it
        finally:
            writer.close()

    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    server = await asyncio.start_server(talk, host, port)
    print(f"{host}:{port} serves clients", flush=True)
    await end.wait()
    server.close()


def main():
    parser = argparse.ArgumentParser(description="one of three servers")
    parser.add_argument("id", choices=["n1", "n2", "n3"])
    parser.add_argument("--port", type=int, default=7001, help="of n1; the others and the clients' follow")
    parser.add_argument("--data", default="data", help="folder for the servers' logs")
    options = parser.parse_args()

    members = {f"n{number + 1}": f"127.0.0.1:{options.port + number}" for number in range(3)}
    clients = {f"n{number + 1}": f"127.0.0.1:{options.port + 10 + number}" for number in range(3)}
    host, port = clients[options.id].split(":")
    table = Table()
    # Raft.open and shutdown block, so they stand outside of the loop.
    folder, address = f"{options.data}/{options.id}", members[options.id]
    with Raft.open(folder, id=options.id, address=address, fsm=table, bootstrap=members) as raft:
        asyncio.run(serve(raft, table, clients, host, int(port)))


if __name__ == "__main__":
    main()
