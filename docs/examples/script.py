"""Create a session for a user, try it out, and cancel it: `python script.py USER WORKFLOW`.

The settings come from the environment: OPENAI_API_KEY, and OPENAI_BASE_URL for an emulator.
"""

import sys

from chatkit_async import ChatKit, ChatKitError


def main(user: str, workflow: str) -> int:
    try:
        # Cancelled on the way out, whatever happens in the block.
        with ChatKit() as client, client.sessions.open(user=user, workflow=workflow) as session:
            print(f"{session.id} for {session.user}: {session.status}")
            print(f"its secret is good for {session.expires_in:.0f} s")
    except ChatKitError as error:
        # It says what went wrong and what to do, and holds neither key nor secret.
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case [user, workflow]:
            sys.exit(main(user, workflow))
        case _:
            sys.exit("usage: python script.py USER WORKFLOW")
