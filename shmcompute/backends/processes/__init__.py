"""Worker processes: isolated, persistent, attached to the arrays they work on.

::

    caller                                             worker (one of several)
    Processes.run(plan)          supervisor.py         main(), Worker          worker.py
      staff: replace the dead    member.py
      pack(plan) -> bytes        packing.py
      Load(plan) --------------> channel.py ---------> unpack, attach, keep
      Run(numbers) ------------>                       plan.run_chunk(number)
      collect  <--------------------------- Ran(done, failure)
"""
