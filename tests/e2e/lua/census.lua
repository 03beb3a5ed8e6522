-- Reads every key of this server and answers a line for each: what it is (legacy, current, other), the name it has
-- in the current layout, and a digest of type, value and absolute expiry. EVAL_RO … 0.
--
-- It shares nothing with the product: where the two disagree on a key, one of them is wrong. The ids of load.lua
-- hold no colon, so the name tells all.
local function describe(key)
  local id = string.match(key, '^tenant:([^:{]+)$')
  if id then return 'legacy', 'tenant:{' .. id .. '}:tenant' end
  local rest
  id, rest = string.match(key, '^tenant:([^:{]+):(destinations?.*)$')
  if id then return 'legacy', 'tenant:{' .. id .. '}:' .. rest end
  if string.find(key, '^tenant:{') then return 'current', key end
  return 'other', key
end

local function digest(key)
  local kind = redis.call('TYPE', key).ok
  local parts = {}
  if kind == 'hash' then
    local fields = redis.call('HGETALL', key)
    for index = 1, #fields, 2 do
      table.insert(parts, #fields[index] .. ':' .. fields[index] .. #fields[index + 1] .. ':' .. fields[index + 1])
    end
    table.sort(parts)
  end
  return redis.sha1hex(kind .. redis.call('PEXPIRETIME', key) .. table.concat(parts))
end

local lines, cursor = {}, '0'
repeat
  local page = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local kind, name = describe(key)
    table.insert(lines, kind .. ' ' .. name .. ' ' .. digest(key))
  end
until cursor == '0'
return lines
