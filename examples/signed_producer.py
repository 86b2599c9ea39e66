"""Enqueue a task that workers can tell from a forged one. Stores and keys come from the environment.

export STEM_BROKER_URL=redis://localhost:6379/0 STEM_SIGNING_KEYS="k1:$(openssl rand -base64 32)"
python examples/signed_producer.py
"""

import trio

from stem_trio import FunctionTaskHandler, PayloadSigner, StemClient, StemConfig


async def charge(context, args):
    print(f"Charging {args['customer_id']}")


tasks = [FunctionTaskHandler(name="billing.charge", entrypoint=charge)]


async def main():
    config = StemConfig.from_environment()
    signer = PayloadSigner.maybe(config.signing)  # None when signing is not configured
    async with StemClient.from_url(config.broker_url, tasks=tasks, signer=signer) as client:
        task_id = await client.enqueue(
            "billing.charge", args={"customer_id": "cust_123", "amount": 4200}, meta={"trace": "abc"}
        )
        status = await client.status(task_id)
    key = f"signed with key {signer.active}" if signer is not None else "not signed"
    print(f"{status.name} is {status.state.value}, {key}")


if __name__ == "__main__":
    trio.run(main)
